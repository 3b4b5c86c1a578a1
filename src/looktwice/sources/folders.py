"""Walk folders for images and `.tar` archives, in the order of their names' bytes.

Names that begin with a dot, what systems keep for themselves, what is excluded (`ignore`) and folders that are
looktwice tables are skipped. Links to files are followed. A link to a folder is followed if it leads out of the scanned
folder; otherwise it is skipped, since its target is scanned under its own name.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from looktwice.errors import MediaError
from looktwice.sources.formats import SUFFIXES
from looktwice.sources.ignore import Exclude, is_own
from looktwice.sources.parts import Frames, extra_of, scan_parts
from looktwice.sources.records import Scope, Source, Unreadable, name_to_id
from looktwice.sources.tar import is_archive, scan_tar
from looktwice.sources.uri import failure, file_uri, parse_uri

_TABLE = {b"manifest.json", b"items.lance"}


@dataclass(slots=True)
class Walk:
    """One scanned folder. Ids are relative to `base`, or to the folder of `nested` that holds the file.

    `ignored` counts files of other kinds by suffix. `empty` holds the folders without any entry.
    """

    folder: bytes
    base: bytes
    nested: tuple[bytes, ...] = ()
    exclude: tuple[str, ...] = ()
    frames: Frames = field(default_factory=Frames)
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[Scope] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _excluded: Exclude = field(init=False)

    def __post_init__(self) -> None:
        self._excluded = Exclude(self.folder, self.exclude)

    def _base(self, path: bytes) -> bytes:
        return max((known for known in self.nested if inside(path, known)), key=len, default=self.base)

    def _root(self, path: bytes) -> str:
        return file_uri(self._base(path), folder=True)

    def __iter__(self) -> Iterator[Source | Unreadable]:
        self.ignored, self.empty = Counter(), []
        self._excluded.start()
        self._seen = {_identity(os.stat(self.folder))}
        pending = list(reversed(self._names(self.folder)))
        while pending:
            path = pending.pop()
            if isinstance(path, Unreadable):
                yield path
            elif (mode := self._mode(path)) is None:
                continue
            elif isinstance(mode, Unreadable):
                yield mode
            elif stat.S_ISDIR(mode):
                pending.extend(reversed(self._names(path)))
            else:
                yield from self._file(path, mode)

    def _names(self, folder: bytes) -> list[bytes | Unreadable]:
        try:
            found = os.listdir(folder)
            self._excluded.enter(folder, found)
            names = sorted(name for name in found if not is_own(name))
        except OSError as error:
            uri = file_uri(folder, folder=True)
            return [Unreadable.of(uri, self._root(folder), failure(error, folder), hides=uri)]
        if not names:
            self.empty.append(Scope(self._root(folder), file_uri(folder, folder=True)))
        return [] if _TABLE.issubset(names) else [os.path.join(folder, name) for name in names]

    def _mode(self, path: bytes) -> int | Unreadable | None:
        """Return the mode of a file or folder, or None to skip it."""
        try:
            status = os.stat(path)
            if self._excluded.covers(path, stat.S_ISDIR(status.st_mode)):
                return None
            if stat.S_ISDIR(status.st_mode):
                return self._enter(path, status)
            return status.st_mode
        except OSError as error:
            suffix = os.path.splitext(path)[1]
            if (suffix and not _wanted(path)) or self._excluded.covers(path, is_folder=False):
                return None  # a broken link to something that would not have been read anyway
            uri = file_uri(path)
            return Unreadable.of(uri, self._root(path), failure(error, path), hides=uri)

    def _enter(self, path: bytes, status: os.stat_result) -> int | Unreadable | None:
        uri = file_uri(path, folder=True)
        if os.path.islink(path):
            target, home = os.path.realpath(path), os.path.realpath(self.folder)
            if inside(os.path.realpath(os.path.dirname(path)), target):
                return Unreadable(
                    uri, self._root(path), "link-loop", "the link leads to a folder that contains it; remove the link"
                )
            if inside(target, home) and target != home:
                return None
        if _identity(status) in self._seen:
            return Unreadable(uri, self._root(path), "link-loop", "the same folder was scanned under another name")
        self._seen.add(_identity(status))
        return status.st_mode

    def _file(self, path: bytes, mode: int) -> Iterator[Source | Unreadable]:
        if not _wanted(path):
            self.ignored[_suffix(path)] += 1
        elif not stat.S_ISREG(mode):
            error = MediaError("not-a-file", "it is a pipe, socket or device; replace it with a regular file")
            yield Unreadable.of(file_uri(path), self._root(path), error)
        else:
            yield from scan_file(path, self._base(path), self.frames)


def scan_file(path: bytes, base: bytes, frames: Frames) -> Iterator[Source | Unreadable]:
    """Yield the items of one file: an image, the members of a `.tar`, the pages of a PDF, the frames of a video."""
    name, root, extra = os.path.relpath(path, base), file_uri(base, folder=True), extra_of(path)
    if is_archive(path):
        yield from scan_tar(file_uri(path), name, root)
    elif extra is not None and extra.parts:
        yield from scan_parts(path, name, root, extra, frames)
    elif extra is not None and not extra.installed:
        uri = file_uri(path)
        yield Unreadable.of(uri, root, extra.missing(), hides=uri)
    else:
        yield Source(name_to_id(name), file_uri(path), root)


def inside(path: bytes, folder: bytes) -> bool:
    """Return whether a path is a folder or lies below it, by its name alone."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def is_linked(uri: str, root: str) -> bool:
    """Return whether a local file, or a folder between it and the folder `root`, is a symbolic link."""
    if not uri.startswith("file:"):
        return False
    path = parse_uri(uri).path
    top = parse_uri(root).path.rstrip(b"/") if root.endswith("/") else os.path.dirname(path)
    return os.path.realpath(path) != os.path.realpath(top) + path.removeprefix(top)


def _wanted(path: bytes) -> bool:
    return path.lower().endswith(b".tar") or _suffix(path) in SUFFIXES or extra_of(path) is not None


def _suffix(path: bytes) -> str:
    return os.path.splitext(path)[1].decode("utf-8", "replace").lower()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
