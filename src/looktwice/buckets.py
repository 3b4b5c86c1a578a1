"""Read and write objects in buckets: `s3://bucket/key`, `gs://…` and `az://container/…`.

Credentials come from where the provider's own tools look: environment variables, profiles, the role of the machine.
`configure` adds settings by the names that LanceDB uses, too. They are kept in the environment, so that processes that
this one starts have them, and are never written or shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from looktwice.errors import BucketError, Damaged, MissingDependency, UsageError

SETTINGS = "LOOKTWICE_STORAGE"
"""The environment variable of the settings, as JSON."""

_URI = re.compile(r"(s3|gs|az):/+([^/]+)/*(.*)\Z", re.DOTALL)
_CLIENT = {"allow_http", "allow_invalid_certificates", "connect_timeout", "timeout", "proxy_url", "user_agent"}
_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_CLIENTS = {f"{prefix.lower()}{name}": name for prefix in _VARIABLES.values() for name in _CLIENT}
_LANCES = ("client_", "download_", "lance_")
"""How settings begin that LanceDB alone knows."""
PROBE = ".probe-"
"""How names begin of objects that a process writes, and deletes at once, to see whether a store tells writers apart."""
_RETRIES = 5
_ATTEMPTS = 20
_PATIENCE = {"connect_timeout": "5s", "timeout": "60s"}


class BucketAddress(NamedTuple):
    """The parts of a uri: scheme, bucket, and key without slashes at its ends."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")


class StoredObject(NamedTuple):
    """An object in a listing. `name` is its whole key."""

    name: str
    size: int


def parse_address(text: object) -> BucketAddress | None:
    """Return the address of a bucket's uri, None for any other text. A `Path` has lost one of the slashes.

    >>> str(parse_address(Path("s3://photos/2024/t.lt/")))
    's3://photos/2024/t.lt'
    """
    found = _URI.match(str(text))
    return BucketAddress(found[1], found[2], found[3].rstrip("/")) if found else None


def configure(settings: Mapping[str, str]) -> None:
    """Use these settings for all buckets from now on, such as `aws_endpoint` and `aws_region`."""
    named = {_CLIENTS.get(name.lower(), name.lower()): value for name, value in settings.items()}
    os.environ[SETTINGS] = json.dumps({**_settings(), **named})


def storage_options(scheme: str) -> dict[str, str]:
    """Return the settings for LanceDB, with limits on its patience that a user may change."""
    retries = {"client_max_retries": str(_RETRIES), "client_retry_timeout": "60"}
    return {**retries, **_client_options(scheme), **_settings()}


def _client_options(scheme: str) -> dict[str, str]:
    """Return how to connect: settings, else variables such as AZURE_ALLOW_HTTP, else limits on patience."""
    given, prefix = _settings(), _VARIABLES[scheme]
    found = {name: given.get(name) or os.environ.get(prefix + name.upper()) for name in _CLIENT}
    return {**_PATIENCE, **{name: value for name, value in found.items() if value}}


def _settings() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(SETTINGS) or "{}")
    return found


@dataclass(frozen=True)
class Bucket:
    """The objects of one bucket. Names are whole keys. Errors are BucketError, one sentence each."""

    scheme: str
    name: str

    @classmethod
    def of(cls, address: BucketAddress) -> Bucket:
        return cls(address.scheme, address.bucket)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return an object. Raises FileNotFoundError, and Damaged above `limit` bytes."""
        return self._get(key, limit)[0]

    def read_range(self, key: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object from `start` on, fewer at its end."""
        with self._plain(f"reading {key}"):
            return bytes(_api().get_range(self._store, key, start=start, length=size)) if size else b""

    def write(self, key: str, data: bytes) -> None:
        """Write an object; readers see the old or the new one."""
        with self._plain(f"writing {key}"):
            _api().put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless its key exists. Return whether it was written."""
        with self._plain(f"writing {key}"):
            try:
                _api().put(self._store, key, data, mode="create", use_multipart=False)
            except _errors().AlreadyExistsError:
                return False
        return True

    def update(self, key: str, limit: int, change: Callable[[bytes], bytes]) -> bytes:
        """Replace an object by what `change` makes of it, again if another writer was faster. Return the new one."""
        for _ in range(_ATTEMPTS):
            before, version = self._get(key, limit)
            if (after := change(before)) == before:
                return after
            with self._plain(f"writing {key}"):
                try:
                    _api().put(self._store, key, after, mode=version, use_multipart=False)
                    return after
                except _errors().PreconditionError:
                    continue
        raise BucketError(f"{self}/{key} is written by too many processes at once; run the command again.")

    def size(self, key: str) -> int | None:
        """Return the size of an object; None if it does not exist."""
        try:
            with self._plain(f"reading {key}"):
                return int(_api().head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def entries(self, prefix: str) -> tuple[list[str], list[StoredObject]]:
        """Return the folders and the objects directly below a prefix, each with its whole key."""
        with self._plain(f"listing {prefix or 'it'}"):
            found = _api().list_with_delimiter(self._store, prefix or None)
        return list(found["common_prefixes"]), [StoredObject(one["path"], one["size"]) for one in found["objects"]]

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Yield all objects below a prefix, in the order of their keys' bytes."""
        pages = _api().list(self._store, prefix or None, chunk_size=1000)
        while True:
            with self._plain(f"listing {prefix or 'it'}"):
                page = next(pages, None)
            if page is None:
                return
            yield from (StoredObject(one["path"], one["size"]) for one in page)

    def delete(self, keys: list[str]) -> None:
        """Delete objects, if they exist."""
        with self._plain("deleting objects"):
            try:
                _api().delete(self._store, keys)
            except FileNotFoundError:  # of az:// and gs://, which then stop
                for key in keys:
                    with suppress(FileNotFoundError):
                        _api().delete(self._store, [key])

    def demand_conditional_puts(self, prefix: str) -> None:
        """Raise UsageError if the store ignores `If-None-Match: *`, by which concurrent commits are told apart."""
        probe = f"{prefix}/{PROBE}{uuid4().hex}"
        if not self.create(probe, b"1"):
            raise BucketError(f"{self} already has {probe}, though nobody wrote it; use another store.")
        try:
            again = self.create(probe, b"2")
        finally:
            self.delete([probe])
        if again:
            raise UsageError(
                f"{self} ignores If-None-Match, so two writers would overwrite each other's commits without a word; "
                "it can be read, but for writing use a store with conditional writes, or a local folder."
            )

    def _get(self, key: str, limit: int | None) -> tuple[bytes, dict[str, Any]]:
        with self._plain(f"reading {key}"):
            found = _api().get(self._store, key)
            if limit is not None and found.meta["size"] > limit:
                raise Damaged(f"{self}/{key} has more than {limit:,} bytes, so looktwice did not write it.")
            return bytes(found.bytes()), {part: found.meta[part] for part in ("e_tag", "version") if found.meta[part]}

    @property
    def _store(self) -> Any:
        return _store(self.scheme, self.name, os.environ.get(SETTINGS))

    @contextmanager
    def _plain(self, doing: str) -> Iterator[None]:
        """Turn the errors of a store into FileNotFoundError, or BucketError with one sentence."""
        errors = _errors()
        try:
            yield
        except (FileNotFoundError, errors.NotFoundError) as error:
            if re.search(_NO_BUCKET, str(error)):
                raise BucketError(f"{self} does not exist; check the name, the region and the endpoint.") from None
            raise FileNotFoundError(f"{self}: {doing}") from None
        except (errors.BaseError, OSError) as error:
            raise BucketError(f"{self}: {doing} failed: {why(error)}") from None


def why(error: BaseException) -> str:
    """Return what is wrong with a store, and how to mend it. No part of the store's own answer is quoted."""
    return known_reason(error) or "it gave no usable answer; check the endpoint and try again."


def known_reason(error: BaseException) -> str | None:
    """Return what is wrong with a store, if the error tells."""
    text = f"{type(error).__name__} {error}".partition("Debug source:")[0]  # whose names of settings say nothing
    return next((sentence for pattern, sentence in _REASONS if re.search(pattern, text)), None)


_NO_BUCKET = "NoSuchBucket|ContainerNotFound|(bucket|container) does not exist"
_REASONS = (
    (_NO_BUCKET, "the bucket does not exist; check the name, the region and the endpoint."),
    ("RequestTimeTooSkewed|RequestExpired|Request date header too old|reasonable timeframe",
     "this machine's clock is wrong; set it and run the command again."),
    ("InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|Unauthenticated|status(?: code)?: 401|"
     "401 Unauth|failed to authenticate|invalid_grant|Invalid Access Key|Invalid RSA key|reading pem|SAS query pair|"
     "Unable to decode service account",
     "the credentials are not valid; set them in the environment or a profile, or pass --storage KEY=VALUE."),
    ("CredentialsProvider|credential|metadata service|169\\.254\\.169\\.254|[Tt]oken.*metadata|anonymous|"
     "Unable to open service account|Account must be specified",
     "no credentials were found; set them in the environment or a profile, or pass --storage KEY=VALUE."),
    ("PermissionDenied|AccessDenied|lacked the necessary privileges|Forbidden|status(?: code)?: 403",
     "access is denied; check the credentials, which need the right to list, read and, to index, write and delete."),
    ("UnknownConfiguration|[Uu]nknown configuration|Configuration key", "a --storage setting is not known; check it."),
    ("NotImplemented|NotSupported", "the store does not support this; use one with conditional writes."),
    ("empty path segment", "a key has an empty part (//), which cannot be read; rename that object."),
    ("SlowDown|status(?: code)?: (503|429)", "the store asks for fewer requests; run the command again later."),
    ("error sending request|[Cc]onnect|dns|(?<!retry_)timed? ?out",
     "it does not answer; check the endpoint and the network."),
)  # fmt: skip


def _api() -> Any:
    try:
        import obstore
    except ImportError:
        raise MissingDependency("obstore", "cloud", "A table or images in a bucket") from None
    return obstore


def _errors() -> Any:
    _api()
    from obstore import exceptions

    return exceptions


@lru_cache
def _store(scheme: str, bucket: str, _: str | None) -> Any:
    """Return the connection to a bucket, with these settings; it is shared by all threads."""
    _api()
    from obstore import exceptions, store

    kinds: dict[str, Any] = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
    others = (*_LANCES, *(prefix.lower() for kind, prefix in _VARIABLES.items() if kind != scheme))
    config = {key: value for key, value in _settings().items() if key not in _CLIENT and not key.startswith(others)}
    client: dict[str, Any] = _client_options(scheme)
    extra = {"credential_provider": _profile()} if scheme == "s3" and _needs_profile(config) else {}
    retry = {"max_retries": _RETRIES}
    try:
        return kinds[scheme](bucket, config=config or None, client_options=client, retry_config=retry, **extra)
    except (exceptions.BaseError, ValueError) as error:
        raise BucketError(f"{scheme}://{bucket} cannot be opened: {why(error)}") from None


def _needs_profile(config: Mapping[str, str]) -> bool:
    """Return whether credentials come from a profile, which obstore does not read by itself."""
    named = {"aws_access_key_id", "access_key_id", "aws_skip_signature", "skip_signature"}
    if named & config.keys() or "AWS_ACCESS_KEY_ID" in os.environ:
        return False
    return "AWS_PROFILE" in os.environ or _profiles().is_file()


def _profiles() -> Path:
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).expanduser()


def _profile() -> Any:
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise MissingDependency("boto3", "cloud", "A profile of AWS") from None
    return Boto3CredentialProvider()
