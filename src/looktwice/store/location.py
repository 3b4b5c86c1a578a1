"""Read and write the place of a table: `Location` is the interface, `LocalFolder` the only implementation so far.

Manifest and codebooks are read and written through it; LanceDB reads and writes its own files below the same `path`.
Object storage is one more implementation: `s3://…` with pyarrow.fs or fsspec, `path` being the uri that LanceDB takes.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from looktwice.errors import Damaged, UsageError
from looktwice.files import demand_plain, read_own, write_whole

LOCK = ".writer.lock"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/")


class Location(Protocol):
    """A place that holds one table. Names are relative, with `/` between their parts; "" is the place itself."""

    @property
    def path(self) -> Path | str:
        """Return the folder or uri that LanceDB opens. `str(location)` names the place in messages."""
        ...

    @property
    def lock_file(self) -> Path:
        """Return a file of this machine for the writer's lock.

        A file outside the table separates the writers of this machine only, and `WriterLock` warns of it.
        """
        ...

    def read_bytes(self, name: str, limit: int) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError, Damaged above `limit` bytes or if it is not a file."""
        ...

    def write_whole(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers and crashes see the old or the new one, after return only the new one."""
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
        """Raise Damaged if a folder contains links out of the table. Object storage has none."""
        ...


def locate(path: str | Path | Location) -> Location:
    """Return the location of a table by its path. Raises UsageError for a uri."""
    if not isinstance(path, str | Path):
        return path
    if _SCHEME.match(str(path)) and not Path(path).exists():
        raise UsageError(
            f"{path} is not on this machine; pass a local folder, as tables on object storage are not supported yet."
        )
    return LocalFolder(Path(path))


def exists(path: str | Path | Location) -> bool:
    """Return whether a place holds a table."""
    return locate(path).exists("manifest.json")


class LocalFolder:
    """A folder of this machine, perhaps a stranger's: links, pipes and devices in it are refused, not followed."""

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
