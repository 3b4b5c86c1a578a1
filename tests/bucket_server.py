"""Real stores for tests, on this machine; other processes reach them through `environment`.

`cloud` is a new bucket of each kind: s3:// of moto in the normal suite, az:// of Azurite and gs:// of fake-gcs-server
with `make test-clouds`.
"""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from bucket_proxy import Proxy, proxy_to
from emulators import CONDITION, azurite, fake_gcs

from looktwice import buckets
from looktwice.buckets import Bucket
from looktwice.store import bucket

SECRET = "wJalrXUtnFEMI"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's, the same everywhere; it opens nothing else."""


def amazon(url: str) -> dict[str, str]:
    """Return the environment variables of S3 at `url`."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    return {**keys, "AWS_ENDPOINT": url, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def azure(url: str) -> dict[str, str]:
    """Return the environment variables of Azure at `url`."""
    keys = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    return {**keys, "AZURE_STORAGE_ENDPOINT": url, "AZURE_ALLOW_HTTP": "true"}


def google(url: str) -> dict[str, str]:
    """Return the environment variables of Google's at `url`, which asks for no token."""
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}


VARIABLES = {"s3": amazon, "az": azure, "gs": google}


@dataclass(frozen=True)
class BucketServer:
    """One of a server's buckets. `url` is the server's."""

    scheme: str
    bucket: str
    url: str

    @property
    def uri(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    @property
    def store(self) -> Bucket:
        return Bucket(self.scheme, self.bucket)

    @property
    def condition(self) -> str:
        """Return the header by which a write is refused if the object exists."""
        return CONDITION if self.scheme == "gs" else "if-none-match"

    def variables(self, url: str | None = None) -> dict[str, str]:
        """Return the environment variables of this store, or of a proxy before it."""
        return VARIABLES[self.scheme](url or self.url)

    def use(self, monkeypatch: pytest.MonkeyPatch, url: str | None = None, **others: str) -> None:
        """Configure this process for this store, or for a proxy before it, with other values of some variables."""
        variables = {**self.variables(url), **others}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        # LanceDB reads the variables of Azure only once in a process.
        settings = {name.lower(): value for name, value in variables.items()} if self.scheme == "az" else {}
        monkeypatch.setenv(buckets.SETTINGS, "{}")
        buckets.configure(settings)
        buckets._store.cache_clear()  # each test's server is the same, but not its credentials

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which another process finds the server."""
        return {**os.environ, **self.variables()}


@pytest.fixture(scope="session", name="s3_server")
def server_fixture() -> Iterator[str]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(scope="session", name="az_server")
def azure_fixture() -> Iterator[str]:
    with azurite() as url:
        yield url


@pytest.fixture(scope="session", name="gs_server")
def google_fixture() -> Iterator[str]:
    with fake_gcs() as url:
        yield url


@pytest.fixture(name="cloud", params=["s3", *(pytest.param(one, marks=pytest.mark.clouds) for one in ("az", "gs"))])
def cloud_fixture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """A new, empty bucket of each kind of store, which this process is configured for."""
    return _new(request.param, request.getfixturevalue(f"{request.param}_server"), monkeypatch)


@pytest.fixture(name="s3")
def s3_fixture(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """The same of one kind, for fixtures that have parameters of their own."""
    return _new("s3", s3_server, monkeypatch)


def _new(scheme: str, url: str, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    made = BucketServer(scheme, f"bucket-{uuid4().hex[:8]}", url)
    made.use(monkeypatch)
    CREATE[made.scheme](made)
    return made


@pytest.fixture(name="proxy")
def proxy_fixture(cloud: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the bucket, which this process uses from now on."""
    with proxy_to(cloud.url) as made:
        cloud.use(monkeypatch, made.url)
        monkeypatch.setattr(bucket, "_tested", set())
        yield made


only = partial(pytest.mark.parametrize, "cloud", indirect=True)
"""A mark for tests of some kinds of store: `@only(argvalues=["s3"])`."""


def _create_s3(made: BucketServer) -> None:
    import boto3

    boto3.client("s3", endpoint_url=made.url, region_name="us-east-1").create_bucket(Bucket=made.bucket)


def _create_az(made: BucketServer) -> None:
    """Create a container; no library here can, so the request is signed by hand."""
    path = f"{urlsplit(made.url).path}/{made.bucket}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    signed = "PUT" + "\n" * 12 + f"{named}/{ACCOUNT}{path}\nrestype:container"
    key = hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), "sha256")
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(key).decode()}"
    _ask(made.url, "PUT", f"{path}?restype=container", headers)


def _create_gs(made: BucketServer) -> None:
    body = json.dumps({"name": made.bucket}).encode()
    _ask(made.url, "POST", "/storage/v1/b?project=test", {"Content-Type": "application/json"}, body)


CREATE: dict[str, Callable[[BucketServer], None]] = {"s3": _create_s3, "az": _create_az, "gs": _create_gs}


def _ask(url: str, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> None:
    link = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    link.request(method, path, body, {"Content-Length": str(len(body)), **headers})
    answer = link.getresponse()
    assert answer.status in (200, 201), answer.read()
    link.close()
