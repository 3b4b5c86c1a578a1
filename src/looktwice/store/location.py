"""Read and write the place of a table: `Location` is the interface, `LocalFolder` and `BucketFolder` implement it.

Manifest and codebooks are read and written through it; LanceDB reads and writes its own files below the same `path`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from looktwice.buckets import parse_address
from looktwice.errors import Damaged, UsageError
from looktwice.files import demand_plain, read_own, write_whole
from looktwice.store.bucket import BucketFolder

LOCK = ".writer.lock"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/")
_FILE = re.compile(r"file:/+")


class Location(Protocol):
    """A place that holds one table. Names are relative, with `/` between their parts; "" is the place itself."""

    @property
    def path(self) -> Path | str:
        """Return the folder or uri that LanceDB opens. `str(location)` names the place in messages."""
        ...

    @property
    def lock_file(self) -> Path | None:
        """Return the file of the writer's lock; None if writers of several machines commit side by side."""
        ...

    @property
    def storage_options(self) -> Mapping[str, str] | None:
        """Return LanceDB's settings for this place."""
        ...

    def read_bytes(self, name: str, limit: int) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError, Damaged above `limit` bytes or if it is not a file."""
        ...

    def write_whole(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers and crashes see the old or the new one, after return only the new one."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless it exists. Return whether it was written."""
        ...

    def update(self, name: str, limit: int, change: Callable[[bytes], bytes]) -> bytes:
        """Replace a file by what `change` makes of it; no other writer's change is lost. Return the new bytes."""
        ...

    def exists(self, name: str = "") -> bool:
        """Return whether a file or folder of this name exists."""
        ...

    def list(self, name: str = "") -> list[str]:
        """Return the sorted names in a folder, not below it; an empty list if it does not exist."""
        ...

    def size(self, name: str = "") -> int:
        """Return the bytes of a file, or of all files in a folder and below; 0 if it does not exist."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with its contents, if it exists."""
        ...

    def prepare(self) -> None:
        """Create the place for a new table. Raises UsageError if something else is there."""
        ...

    def check(self, name: str) -> None:
        """Raise Damaged if a folder contains links out of the table."""
        ...

    def demand_writable(self) -> None:
        """Raise UsageError if concurrent commits could be lost here."""
        ...


def locate(path: str | Path | Location) -> Location:
    """Return the location of a table: a folder, a `file:` uri or a bucket's. Raises UsageError for other uris."""
    if not isinstance(path, str | Path):
        return path
    text = str(path)
    if not _SCHEME.match(text) or Path(path).exists():
        return LocalFolder(Path(path))
    if (address := parse_address(text)) is not None:
        return BucketFolder(address)
    if _FILE.match(text):
        return LocalFolder(Path("/" + unquote(_FILE.sub("", text))))
    raise UsageError(f"{path} is not a place for a table; pass a folder, or a uri with s3://, gs://, az:// or file://.")


def exists(path: str | Path | Location) -> bool:
    """Return whether a place holds a table."""
    return locate(path).exists("manifest.json")


class LocalFolder:
    """A folder of this machine, perhaps a stranger's: links, pipes and devices in it are refused, not followed.

    Its writers hold the lock, so `create` and `update` need no conditions.
    """

    storage_options = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_file = path / LOCK

    def __str__(self) -> str:
        return str(self.path)

    def read_bytes(self, name: str, limit: int) -> bytes:
        return read_own(self._at(name), limit)

    def write_whole(self, name: str, data: bytes) -> None:
        path = self._at(name)
        if path.parent != self.path:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, sync=True)

    def create(self, name: str, data: bytes) -> bool:
        if self.exists(name):
            return False
        self.write_whole(name, data)
        return True

    def update(self, name: str, limit: int, change: Callable[[bytes], bytes]) -> bytes:
        before = self.read_bytes(name, limit)
        if (after := change(before)) != before:
            self.write_whole(name, after)
        return after

    def exists(self, name: str = "") -> bool:
        return (self.path / name).exists()

    def list(self, name: str = "") -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(os.listdir(self._at(name)))
        return []

    def size(self, name: str = "") -> int:
        path = self.path / name
        return _size(path) + sum(_size(Path(folder) / file) for folder, _, files in os.walk(path) for file in files)

    def delete(self, name: str) -> None:
        path = self._at(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def prepare(self) -> None:
        if self.path.is_symlink() and not self.path.exists():
            raise UsageError(f"{self.path} is a link to a missing folder; choose another place.")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file, but a table is a folder; choose another name.")
        self.path.mkdir(parents=True, exist_ok=True)

    def check(self, name: str) -> None:
        demand_plain(self._at(name))

    def demand_writable(self) -> None:
        """A folder's lock keeps writers apart."""

    def _at(self, name: str) -> Path:
        """Return the path of a name. Raises Damaged if a folder on the way is a link."""
        path = self.path / name
        for folder in path.parents:
            if folder == self.path:
                break
            if folder.is_symlink():
                raise Damaged(f"{folder} is a link; replace it with the folder itself.")
        return path


def _size(path: Path) -> int:
    """Return the bytes of a file; 0 for anything else, and for a file that another process has just removed."""
    with suppress(FileNotFoundError, NotADirectoryError):
        found = path.lstat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0
