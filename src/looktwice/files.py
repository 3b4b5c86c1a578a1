"""Write files atomically, and read files of a stranger's folder safely."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from looktwice.errors import Damaged, LooktwiceError, UsageError

DRAFT = ".part"

DEVICES, PROCESSES = Path("/dev"), Path("/proc")
_MOST_LINKS = 40


def write_whole(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write a file so that a reader, a crash or a full disk sees the old or the new one, never a part.

    A path that cannot be replaced (see `is_replaced`) is appended to. A link is replaced, since a stranger's folder may
    contain a link to any file of the user; apply `followed` first to a path that the user named. With `sync` the bytes
    are on the disk before the file gets its name. Raises UsageError for a path that is not writable, LooktwiceError if
    the disk is full or fails.
    """
    try:
        if is_replaced(path):
            _replace(path, data, sync)
        else:
            with path.open("ab") as file:  # not "wb": /dev/stdout may be a file that a shell appends to
                file.write(data)
    except BrokenPipeError:  # the reader has closed the pipe, which is no error of this path
        raise
    except OSError as error:
        kind = LooktwiceError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else UsageError
        raise kind(f"{path} cannot be written ({error.strerror}); choose another path or free some space.") from None


def read_own(path: Path, limit: int) -> bytes:
    """Read a file of a folder that may be a stranger's: a regular file, not a link, of at most `limit` bytes.

    Raises Damaged for anything else, OSError if the file is missing or unreadable.
    """
    try:
        # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Damaged(f"{path} is a link; replace it with the file itself.") from None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Damaged(f"{path} is not a regular file; restore it from a copy.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Damaged(f"{path} has more than {limit:,} bytes, so looktwice did not write it; restore it from a copy.")
    return data


def demand_plain(folder: Path) -> None:
    """Raise Damaged if anything below `folder` is a link, pipe or device: it may lead out, or never end."""
    folders = [folder]
    if folder.is_symlink():
        raise Damaged(f"{folder} is a link; replace it with the folder itself.")
    while folders:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(folders.pop()) as entries,
        ):  # another process may tidy up
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise Damaged(
                        f"{entry.path} is a link, pipe or device, but a table holds only regular files; remove it."
                    )


def is_replaced(path: Path) -> bool:
    """Return whether writing `path` puts a new file in its place.

    This is False for devices, pipes and folders, and for the open files of /dev and /proc: the link /dev/stdout is
    shared by all programs, even if it leads to a file.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and not _is_open_file(path))


def followed(path: Path) -> Path:
    """Return the target of the links of a file that the user named; it need not exist.

    The open files of /dev and /proc are returned unchanged. Raises UsageError for links in a circle.
    """
    found = path
    for _ in range(_MOST_LINKS):
        if not found.is_symlink() or _is_open_file(found):
            return found
        found = found.parent / os.readlink(found)
    raise UsageError(f"{path} cannot be written ({os.strerror(errno.ELOOP)}); remove one of its links.")


def _is_open_file(link: Path) -> bool:
    folder = Path(os.path.realpath(link.parent))
    return folder == DEVICES or folder.is_relative_to(PROCESSES)


def _replace(path: Path, data: bytes, sync: bool) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}{DRAFT}")
    draft.unlink(missing_ok=True)
    # O_EXCL follows no link: a stranger's folder may contain a link of this name to any file of the user.
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
