"""Allow one writer at a time, among processes and threads: `flock` on `.writer.lock`. Readers ignore it.

A place without a lock file, such as a bucket, has writers side by side: only threads of one `Table` wait there.

The kernel drops the lock when its process ends, however it ends, so `kill -9` leaves nothing to clean up. On a file
system without `flock` the file itself is the lock, and it may outlive a process of another machine.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from looktwice.errors import Damaged, Locked, StoreError
from looktwice.files import read_own
from looktwice.store.location import Location

_MOST_BYTES = 1024


class WriterLock:
    """The lock of one table; a thread that holds it may take it again."""

    def __init__(self, location: Location) -> None:
        self._place, self._file = location, location.lock_file
        self._lock = None if self._file is None else FileLock(self._file, thread_local=False)
        self._thread, self._depth = RLock(), 0

    @property
    def _is_file_alone(self) -> bool:
        """Return whether `flock` is missing: filelock then uses a SoftFileLock, or, from 4.3 on, one with a `pid`."""
        return isinstance(self._lock, SoftFileLock) or hasattr(self._lock, "pid")

    @contextmanager
    def hold(self, wait: float = 0) -> Iterator[bool]:
        """Hold the lock, waiting up to `wait` seconds for it. Yield whether it is new to this thread.

        Raises Locked, which names the process that holds it.
        """
        if not self._thread.acquire(timeout=wait):
            raise Locked(f"Another thread is writing to {self._place}; try again when it has finished.")
        try:
            first = self._depth == 0
            with self._hold_place(wait, first):
                self._depth += 1
                try:
                    yield first
                finally:
                    self._depth -= 1
        finally:
            self._thread.release()

    @contextmanager
    def _hold_place(self, wait: float, first: bool) -> Iterator[None]:
        if self._file is None or self._lock is None:
            self._place.demand_writable()
            yield
            return
        with self._hold_file(self._file, self._lock, wait):
            if first:
                self._sign(self._file)
            yield

    @contextmanager
    def _hold_file(self, file: Path, lock: BaseFileLock, wait: float) -> Iterator[None]:
        _demand_own_file(file)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise Locked(self._refusal(file)) from None
        except NotImplementedError as error:  # of older versions of filelock
            raise StoreError(
                f"{file} cannot be locked: the installed filelock does not support its file system; install a newer "
                "filelock."
            ) from error
        except OSError as error:
            raise StoreError(f"{file} cannot be locked ({error.strerror}); check its permissions.") from error
        try:
            yield
        finally:
            lock.release()

    def _sign(self, file: Path) -> None:
        """Write the holder into the file, in filelock's format; without `flock`, filelock does it itself."""
        if not self._is_file_alone:
            with suppress(OSError):  # it only names the holder, and a delete must work on a full disk
                file.write_text(f"{os.getpid()}\n{_host()}\n")

    def _refusal(self, file: Path) -> str:
        pid, host = _holder(file)
        who = f"process {pid or '?'} on {host}" if host and host != _host() else f"process {pid}" if pid else "another"
        if self._is_file_alone:
            return (
                f"{file} names {who} as the writer, and this file system has no locks to check it; "
                "remove that file if nothing is writing."
            )
        if host in ("", _host()) and not _is_alive(pid):
            who = "another process"
        return f"{who[0].upper()}{who[1:]} is writing to {self._place}; try again when it has finished."


def _demand_own_file(file: Path) -> None:
    """Raise StoreError if signing the lock could overwrite a file with a second name, or block on a pipe."""
    with suppress(FileNotFoundError, NotADirectoryError):
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise Damaged(f"{file} is a link or not a regular file, so it cannot be locked; remove it.")


def _holder(file: Path) -> tuple[int, str]:
    """Return the process and host that the file names; 0 and "" if it names none."""
    try:
        pid, *host = read_own(file, _MOST_BYTES).decode("ascii").split("\n")
        return int(pid), host[0] if host else ""
    except (OSError, StoreError, ValueError):
        return 0, ""


def _host() -> str:
    """Return the name of this machine, in printable characters."""
    return socket.gethostname().encode("ascii", "backslashreplace").decode().replace("\n", "?") or "?"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0
