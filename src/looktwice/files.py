"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from looktwice.errors import LooktwiceError, UsageError

DRAFT = ".part"


def write_whole(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file so that a reader, a crash or a full disk sees the old or the new one, never a part.

    A device or pipe is written straight. With `sync` the bytes are on the disk before the file has its name. Raises
    UsageError for a path that cannot be written, LooktwiceError where the disk is full or fails.
    """
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a named pipe: nothing to replace
            path.write_bytes(data)
        else:
            _replace(path, data, sync)
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        kind = LooktwiceError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else UsageError
        raise kind(f"{path} cannot be written: {error.strerror}.") from None


def _replace(path: Path, data: bytes, sync: bool) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    draft.unlink(missing_ok=True)
    # O_EXCL follows no link: a folder from a stranger may hold one of this name, to any file of ours.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
