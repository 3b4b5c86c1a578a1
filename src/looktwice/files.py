"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from looktwice.errors import LooktwiceError, UsageError

DRAFT = ".part"

DEVICES, PROCESSES = Path("/dev"), Path("/proc")
_MOST_LINKS = 40


def write_whole(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file so that a reader, a crash or a full disk sees the old or the new one, never a part.

    What is no file to replace (see `is_replaced`) is written straight, behind what it holds. A link is replaced: a
    folder from a stranger may hold one, to any file of ours; what the user named goes through `followed` first. With
    `sync` the bytes are on the disk before the file has its name. Raises UsageError for a path that cannot be written,
    LooktwiceError where the disk is full or fails.
    """
    try:
        if is_replaced(path):
            _replace(path, data, sync)
        else:
            with path.open("ab") as file:  # not "wb": /dev/stdout may be a file that a shell appends to
                file.write(data)
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        kind = LooktwiceError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else UsageError
        raise kind(f"{path} cannot be written: {error.strerror}.") from None


def is_replaced(path: Path) -> bool:
    """Whether writing `path` puts a new file in its place: not where it is a device, a pipe or a folder, and not where
    it is what /dev and /proc call an open file: the link /dev/stdout is everybody's, even if it leads to a file.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and not _is_open_file(path))


def followed(path: Path) -> Path:
    """Return what the links of a file that the user named lead to, there or not; what /dev and /proc call an open file
    is no place and is returned as it is. Raises UsageError for links in a circle."""
    found = path
    for _ in range(_MOST_LINKS):
        if not found.is_symlink() or _is_open_file(found):
            return found
        found = found.parent / os.readlink(found)
    raise UsageError(f"{path} cannot be written: {os.strerror(errno.ELOOP)}.")


def _is_open_file(link: Path) -> bool:
    folder = Path(os.path.realpath(link.parent))
    return folder == DEVICES or folder.is_relative_to(PROCESSES)


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
