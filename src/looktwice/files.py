"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from looktwice.errors import LooktwiceError, StoreError, UsageError

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


def read_own(path: Path, limit: int) -> bytes:
    """Read a file of a folder that may be a stranger's: a regular file, no link out of it, of at most `limit` bytes.

    Raises StoreError for anything else, OSError where the file is missing or may not be read.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StoreError(f"{path} is a link; put the file itself there.") from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise StoreError(f"{path} is no regular file; restore it from a copy.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"{path} has more than {limit:,} bytes and is none of ours; restore it from a copy.")
    return data


def demand_plain(folder: Path) -> None:
    """Raise StoreError where anything below `folder` is a link, pipe or device: it may lead out, or never end."""
    folders = [folder]
    if folder.is_symlink():
        raise StoreError(f"{folder} is a link; put the folder itself there.")
    while folders:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folders.pop()) as entries,
        ):  # another process may tidy up
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise StoreError(f"{entry.path} is a link, pipe or device; a table holds only files of its own.")


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
