"""One writer at a time, between processes: `flock` on `.writer.lock`. Readers never look at it.

The kernel drops the lock when its process ends, however it ends, so there is nothing to clean up after `kill -9`. A
file system without `flock` has only the file itself, which outlives its process where that is another machine's.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from looktwice.errors import Locked, StoreError
from looktwice.files import read_own

NAME = ".writer.lock"
_MOST_BYTES = 1024


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
        self._demand_own_file()
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise Locked(self._refusal()) from None
        except NotImplementedError as error:  # of older versions of filelock
            raise StoreError(f"{self._file} lies where there are no locks; install a newer filelock.") from error
        except OSError as error:
            raise StoreError(f"{self._file} cannot be locked ({error.strerror}); check the permissions.") from error
        try:
            self._sign()
            yield
        finally:
            self._lock.release()

    def _demand_own_file(self) -> None:
        """Raise StoreError where signing the lock would overwrite a file that has another name, too, or never end."""
        with suppress(FileNotFoundError, NotADirectoryError):
            found = self._file.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise StoreError(f"{self._file} cannot be locked, as it is a link or no regular file; remove it.")

    def _sign(self) -> None:
        """Say in the file who holds it, in the way of filelock, which does it itself where there is no `flock`."""
        if not isinstance(self._lock, SoftFileLock):
            with suppress(OSError):  # it only names the holder, and a delete must work on a full disk
                self._file.write_text(f"{os.getpid()}\n{_host()}\n")

    def _refusal(self) -> str:
        pid, host = self._holder()
        who = f"process {pid or '?'} on {host}" if host and host != _host() else f"process {pid}" if pid else "another"
        if isinstance(self._lock, SoftFileLock):
            return (
                f"{self._file} says that {who} is writing, and this file system has no locks to ask; "
                "if nothing is writing, remove that file."
            )
        if host in ("", _host()) and not _is_alive(pid):
            who = "another process"
        return f"{who[0].upper()}{who[1:]} is writing to {self._file.parent}; try again when it has finished."

    def _holder(self) -> tuple[int, str]:
        """Process and host that the file names; 0 and "" where it names none."""
        try:
            pid, *host = read_own(self._file, _MOST_BYTES).decode("ascii").split("\n")
            return int(pid), host[0] if host else ""
        except (OSError, StoreError, ValueError):
            return 0, ""


def _host() -> str:
    """Name of this machine, in printable characters."""
    return socket.gethostname().encode("ascii", "backslashreplace").decode().replace("\n", "?") or "?"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
