"""Download `org/name` from the model hub to this machine, with progress and errors that say what to do.

huggingface_hub downloads, resumes, caches and checks. This module does not know the purpose of a snapshot.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from looktwice.errors import UsageError, first_line

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two log lines about a download if stderr is not a terminal."""
XET_LIMITS = {
    "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s",
    "HF_XET_CLIENT_READ_TIMEOUT": "20s",
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "60s",
}
"""Limits of hf_xet, unless the environment has its own: its own would try a silent xet server for half an hour."""

_AGAIN = "run the same command again: files that are complete are kept"


def snapshot(name: str, revision: str | None, wanted: list[str], unwanted: list[str]) -> Path:
    """Return the folder of a snapshot, named by its commit; download the missing files.

    Without a network, earlier downloads are used; incomplete ones are refused. Raises UsageError.
    """
    from huggingface_hub import close_session, snapshot_download

    for limit, value in XET_LIMITS.items():
        os.environ.setdefault(limit, value)
    download = _Download(name)
    patterns: Any = {"allow_patterns": wanted, "ignore_patterns": unwanted}
    with ThreadPoolExecutor(1) as pool:  # so that Ctrl-C reaches this thread during a download
        job = pool.submit(lambda: snapshot_download(name, revision=revision, tqdm_class=download.bars(), **patterns))
        try:
            return Path(job.result())
        except KeyboardInterrupt:
            download.stopped.set()
            close_session()
            raise
        except Exception as error:
            raise UsageError(_sentence(name, revision, error)) from error
        finally:
            download.close()


class _Download:
    """Progress of one snapshot: a bar if stderr is a terminal, else lines in the log; nothing if nothing comes."""

    def __init__(self, name: str) -> None:
        self.stopped = threading.Event()
        self._name = name
        self._bar: Any = None
        self._done = self._total = 0
        self._lock, self._began, self._said = threading.Lock(), time.monotonic(), 0.0

    def bars(self) -> type:
        """Return a class of bars for huggingface_hub that draws nothing and counts bytes here."""
        import huggingface_hub.utils as hub

        download, bar = self, cast(Any, hub).tqdm

        class Count(bar):  # type: ignore[misc,valid-type]
            def __init__(self, *args: Any, **options: Any) -> None:
                # Of two bars of bytes, one counts what comes from the network and one what is written: the latter
                self.counts = options.get("unit") == "B" and not str(options.get("desc")).startswith("Downloading")
                super().__init__(*args, **{**options, "disable": True})

            def update(self, n: float | None = 1) -> None:
                if download.stopped.is_set():
                    raise InterruptedError("the download was stopped")
                if self.counts:
                    download.add(int(n or 0), int(self.total or 0))

        return Count

    def add(self, n: int, total: int) -> None:
        """Count n more bytes of the `total` of all files begun so far."""
        with self._lock:
            self._done, self._total = self._done + n, total
            if not self._said:
                self._said = self._began
                log.info("Downloading %s from the model hub (%s) …", self._name, _endpoint())
            if sys.stderr.isatty():
                self._draw(n)
            elif time.monotonic() - self._said >= EVERY:
                self._said = time.monotonic()
                log.info("%s: %s", self._name, self._so_far())

    def close(self) -> None:
        """Log how much came, if anything did."""
        if self._bar is not None:
            self._bar.close()
        if self._said:
            log.info("%s: %s, %.0f s", self._name, self._so_far(), time.monotonic() - self._began)

    def _draw(self, n: int) -> None:
        import huggingface_hub.utils as hub

        if self._bar is None:
            self._bar = cast(Any, hub).tqdm(desc=self._name, unit="B", unit_scale=True, leave=False)
        self._bar.total = self._total
        self._bar.update(n)

    def _so_far(self) -> str:
        rate = self._done / max(time.monotonic() - self._began, 1e-3)
        return f"{self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB, {rate / 1e6:,.1f} MB/s"


def _sentence(name: str, revision: str | None, error: Exception) -> str:
    """Return what went wrong and how to mend it, for an error of any of the libraries."""
    from huggingface_hub import errors

    at = f"{name} (revision {revision})" if revision else name
    chain = list(_chain(error))
    if any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(one) for one in chain):
        return f"The disk is full, so the model {at} was not downloaded; free space in {_cache()}, then {_AGAIN}."
    if any(getattr(one, "errno", None) in (errno.EACCES, errno.EROFS) for one in chain):
        return f"The model {at} cannot be kept: {_cache()} is not writable; set HF_HOME to a folder of yours."
    if (partial := _missing_files(chain)) is not None:
        return f"Only a part of the model {at} is on this machine ({partial}); connect to the model hub and {_AGAIN}."
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return f"The model {at} is not on this machine and HF_HUB_OFFLINE is set; unset it to download the model."
    if any(isinstance(one, errors.GatedRepoError) for one in chain):
        how = f"accept it at {_endpoint()}/{name}, then log in with `hf auth login`"
        return f"The model {at} needs its licence to be accepted; {how}."
    if any(isinstance(one, errors.RevisionNotFoundError) for one in chain):
        return f"The model {name} has no revision {revision!r}; name one from its hub page."
    if any(isinstance(one, errors.RepositoryNotFoundError) for one in chain):
        return f"The model hub has no {name}, or it is private; check the name, or log in with `hf auth login`."
    if any(isinstance(one, errors.DisabledRepoError) for one in chain):
        return f"The model {name} was removed from the model hub; name another."
    problem = f"The model {at} is not on this machine and could not be downloaded"
    if _is_xet(chain):
        return f"{problem} from its xet storage ({first_line(error)}); set HF_HUB_DISABLE_XET=1 and {_AGAIN}."
    status = next((one.response.status_code for one in chain if isinstance(one, errors.HfHubHTTPError)), None)
    if status is not None:
        return f"{problem}: {_by_status(status)}."
    return (
        f"{problem} ({first_line(chain[-1])}); connect to the model hub and {_AGAIN}, "
        "or download the model elsewhere and name its folder."
    )


def _by_status(status: int) -> str:
    if status == 401:
        return "the hub does not know your access token; log in again with `hf auth login`, or unset HF_TOKEN"
    if status == 403:
        return "your access token may not read it (403); allow that in the token's settings, or use another"
    if status == 429:
        return f"the hub limits your requests (429); wait some minutes, log in with `hf auth login` and {_AGAIN}"
    if status >= 500:
        return f"the hub has an internal error ({status}); wait some minutes and {_AGAIN}"
    return f"the hub answers with status {status}; check HF_ENDPOINT, which is {_endpoint()}"


def _is_xet(chain: list[BaseException]) -> bool:
    """Return whether xet storage, which replaces plain downloads, failed; its errors have no class of their own."""
    frames = (frame for one in chain for frame, _ in traceback.walk_tb(one.__traceback__))
    return any(frame.f_code.co_name == "xet_get" for frame in frames)


def _missing_files(chain: list[BaseException]) -> str | None:
    """Return what huggingface_hub reports missing from an incomplete snapshot, or None."""
    for one in chain:
        if type(one).__name__ == "IncompleteSnapshotError":
            found = re.search(r"(\d+ file\(s\) are missing) \((.*?)\)\.", str(one))
            return f"{found[1]}: {found[2]}".replace("file(s) are missing", "missing") if found else "files are missing"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
