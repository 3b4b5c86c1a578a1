"""One writer at a time, between processes: `flock` on `.writer.lock`. Readers never look at it.

The kernel drops the lock when its process ends, however it ends, so there is nothing to clean up after `kill -9`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from looktwice.errors import Locked, StoreError

NAME = ".writer.lock"


class WriterLock:
    """The lock of one table; one object may take it again while it holds it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._lock = FileLock(self._file, thread_local=False)

    @property
    def held(self) -> bool:
        return self._lock.is_locked

    @contextmanager
    def hold(self, wait: float = 0) -> Iterator[None]:
        """Hold the lock, waiting up to `wait` seconds for it. Raises Locked, naming the process that has it."""
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise Locked(
                f"{self._holder()} is writing to {self._file.parent}; try again when it has finished."
            ) from None
        except OSError as error:
            raise StoreError(f"{self._file} cannot be locked ({error.strerror}); check the permissions.") from error
        try:
            with suppress(OSError):  # it only names the holder, and a delete must work on a full disk
                self._file.write_text(f"{os.getpid()}\n")
            yield
        finally:
            self._lock.release()

    def _holder(self) -> str:
        try:
            return f"Process {int(self._file.read_text())}"
        except (OSError, ValueError):
            return "Another process"
