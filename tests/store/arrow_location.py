"""A second `Location`, over any file system of pyarrow: what a table on object storage would be."""

from __future__ import annotations

import posixpath
from pathlib import Path

from pyarrow import fs

from looktwice.errors import StoreError, UsageError


class ArrowLocation:
    """`base` below a file system of pyarrow. LanceDB opens `path`, a uri of the same place; the lock lies elsewhere."""

    def __init__(self, system: fs.FileSystem, base: str, path: str, lock_file: Path) -> None:
        self.system, self.base, self.path, self.lock_file = system, base, path, lock_file
        self.checked: list[str] = []

    def __str__(self) -> str:
        return self.path

    def read_bytes(self, name: str, limit: int) -> bytes:
        info = self._info(name)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(name)
        if info.type != fs.FileType.File or info.size > limit:
            raise StoreError(
                f"{self}/{name} has more than the limit, so looktwice did not write it; restore it from a copy."
            )
        with self.system.open_input_stream(self._at(name)) as file:
            return file.read()

    def write_whole(self, name: str, data: bytes) -> None:
        self.system.create_dir(posixpath.dirname(self._at(name)))
        with self.system.open_output_stream(f"{self._at(name)}.draft") as file:
            file.write(data)
        self.system.move(f"{self._at(name)}.draft", self._at(name))

    def exists(self, name: str = "") -> bool:
        return self._info(name).type != fs.FileType.NotFound

    def list(self, name: str = "") -> list[str]:
        selector = fs.FileSelector(self._at(name), allow_not_found=True)
        return sorted(info.base_name for info in self.system.get_file_info(selector))

    def size(self, name: str = "") -> int:
        info = self._info(name)
        if info.type == fs.FileType.File:
            return info.size
        selector = fs.FileSelector(self._at(name), recursive=True, allow_not_found=True)
        return sum(found.size or 0 for found in self.system.get_file_info(selector))

    def delete(self, name: str) -> None:
        kind = self._info(name).type
        if kind == fs.FileType.Directory:
            self.system.delete_dir(self._at(name))
        elif kind == fs.FileType.File:
            self.system.delete_file(self._at(name))

    def prepare(self) -> None:
        if self._info("").type == fs.FileType.File:
            raise UsageError(f"{self} is a file; choose another name.")
        self.system.create_dir(self.base)

    def check(self, name: str) -> None:
        self.checked.append(name)

    def _at(self, name: str) -> str:
        return posixpath.join(self.base, name) if name else self.base

    def _info(self, name: str) -> fs.FileInfo:
        return self.system.get_file_info(self._at(name))
