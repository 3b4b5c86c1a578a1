"""Read webdataset `.tar` archives: members that share a key (the path up to the name's first dot) are one sample.

A sample has an image, a `.txt` (its text) and a `.json` (its metadata). Each further image under the key is an item of
its own, with the same text and metadata unless it has its own: `a.left.jpg` and `a.left.txt` are the item `a.left`.

Scanning reads headers only; images are read later, by offset, straight from the archive. No member is ever extracted,
so its name cannot lead out of a folder.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from looktwice.errors import MediaError
from looktwice.sources.formats import SUFFIXES
from looktwice.sources.ignore import is_own_folder
from looktwice.sources.jsonl import parse_object
from looktwice.sources.records import Source, Unreadable, name_to_id
from looktwice.sources.uri import failure, open_uri, parse_uri, range_uri

MAX_SIDECAR = 2**24
MAX_HEADERS = 2**20
"""Largest headers of one member, in bytes: tarfile reads long names and extended headers whole, at any stated size."""
_OTHER = (".txt", ".json")
_ARCHIVE = re.compile(rb"\.(tar(\.(gz|bz2|xz|zst))?|tgz)\Z", re.IGNORECASE)

_Place: TypeAlias = tuple[int, int]
"""Offset and size in the archive."""


@dataclass(slots=True)
class _Group:
    key: bytes
    members: dict[str, _Place | MediaError] = field(default_factory=dict)  # by suffix

    def place(self, suffix: str) -> _Place | None:
        """Return where a member lies; None without it. Raises MediaError for an unusable one."""
        found = self.members.get(suffix)
        if isinstance(found, MediaError):
            raise found
        return found


@dataclass(slots=True)
class _Headers:
    """A view of the archive for tarfile, of at most `left` bytes until the next member. It never reads data."""

    file: BinaryIO
    left: int = MAX_HEADERS

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"the headers of a member take more than {MAX_HEADERS:,} bytes")
        self.left -= size
        return self.file.read(size)

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()


def is_archive(path: bytes) -> bool:
    """Return whether a name ends like a .tar; compressed ones count, so that they are refused with a reason."""
    return _ARCHIVE.search(path) is not None


def scan_tar(uri: str, name: bytes, root: str) -> Iterator[Source | Unreadable]:
    """Yield one item per key, in the order of the archive; ids are `name/key`."""
    try:
        with open_uri(uri) as file:
            yield from _items(file, name, root, uri)
    except MediaError as error:
        yield Unreadable.of(uri, root, error, hides=f"{uri}#")
    except OSError as error:
        yield Unreadable.of(uri, root, failure(error, parse_uri(uri).path), hides=f"{uri}#")


def _items(file: BinaryIO, name: bytes, root: str, uri: str) -> Iterator[Source | Unreadable]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    groups = _groups(file, size)
    while True:
        try:
            group = next(groups, None)
        except MediaError as error:
            yield Unreadable.of(uri, root, error, hides=f"{uri}#")
            return
        if group is None:
            return
        yield from _sources(group, file, name, root, uri)


def _groups(file: BinaryIO, size: int) -> Iterator[_Group]:
    group: _Group | None = None
    damage: MediaError | None = None
    members = _members(file, size)
    while True:
        try:
            member = next(members, None)
        except MediaError as error:  # the members before the damage are whole, so they are yielded first
            damage, member = error, None
        if member is None:
            break
        key, suffix = _split(member.name)
        if not key or not (_is_image(suffix) or suffix.endswith(_OTHER)) or _is_own(key):
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
        _put(group, suffix, member, size)
    if group is not None:
        yield group
    if damage is not None:
        raise damage


def _put(group: _Group, suffix: str, member: tarfile.TarInfo, size: int) -> None:
    if suffix in group.members:
        twice = MediaError("bad-record", f"{member.name!r} occurs twice in a row; rename one of them")
        group.members[suffix] = twice
    elif not member.isreg() or member.issparse():
        group.members[suffix] = MediaError("not-a-file", f"{member.name!r} is a link, device or sparse file")
    elif member.offset_data + member.size > size:
        group.members[suffix] = MediaError("truncated", f"the archive ends inside {member.name!r}")
    else:
        group.members[suffix] = (member.offset_data, member.size)


def _members(file: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    headers: Any = _Headers(file)
    try:
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                headers.left = MAX_HEADERS
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise every header of a shard stays in memory
                if member.size < 0:  # tarfile would seek back and read the same headers for ever
                    raise tarfile.ReadError(f"{member.name!r} has a negative size")
                if not member.isdir():
                    yield member
            end = archive.offset
    except (tarfile.TarError, ValueError, EOFError, OverflowError, LookupError, RecursionError) as error:
        hint = "; a compressed archive has no random access: decompress it first" if _compressed(file) else ""
        raise MediaError("bad-archive", f"{error}{hint}") from None
    # tarfile ends in silence at a damaged header; only a block of zeros is the real end.
    if end + 512 > size:
        raise MediaError("truncated", "the archive has no end marker and was probably cut off; fetch it again")
    if _read_at(file, end, 512) != bytes(512):
        raise MediaError("bad-archive", f"the header at byte {end:,} is damaged; fetch the archive again")


def _compressed(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))


def _split(name: str) -> tuple[bytes, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return (folder + slash + stem).encode("utf-8", "surrogateescape") if stem else b"", (dot + suffix).lower()


def _is_image(suffix: str) -> bool:
    return PurePosixPath(f"x{suffix}").suffix in SUFFIXES


def _is_own(key: bytes) -> bool:
    return any(is_own_folder(part) for part in key.split(b"/")[:-1])


def _sources(group: _Group, file: BinaryIO, name: bytes, root: str, uri: str) -> Iterator[Source | Unreadable]:
    """Yield an item for each image of a group, or one for its text."""
    found = [suffix for suffix in group.members if _is_image(suffix)]
    for suffix, stem in zip(found, _stems(found), strict=True) if found else [("", "")]:
        try:
            if (source := _source(group, suffix, stem, file, name, root, uri)) is not None:
                yield source
        except MediaError as error:
            places = [place for place in group.members.values() if not isinstance(place, MediaError)]
            yield Unreadable.of(range_uri(uri, *(places or [(0, 0)])[0]), root, error, hides=f"{uri}#")


def _stems(suffixes: Sequence[str]) -> list[str]:
    """Return what tells the images of one key apart: nothing for `.jpg`, `.left` for `.left.jpg`."""
    stems = [suffix.rpartition(".")[0] for suffix in suffixes]
    return stems if len(set(stems)) == len(stems) else list(suffixes)


def _source(group: _Group, suffix: str, stem: str, file: BinaryIO, name: bytes, root: str, uri: str) -> Source | None:
    image = group.place(suffix) if suffix else None
    text, metadata = _text(group, stem, file), _metadata(group, stem, file)
    where = image or group.place(".txt")
    if where is None:
        return None
    if image is None and not text:
        raise MediaError("bad-record", "it has no image and its .txt is empty; add a text")
    item_id = name_to_id(name + b"/" + group.key + stem.encode("utf-8", "surrogateescape"))
    member = (group.key.decode("utf-8", "backslashreplace") + suffix) if suffix else ""
    return Source(item_id, range_uri(uri, *where), root, text, metadata, image is not None, member=member)


def _text(group: _Group, stem: str, file: BinaryIO) -> str | None:
    if (data := _sidecar(group, stem, ".txt", file)) is None:
        return None
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise MediaError("bad-record", "its .txt is not UTF-8; save it as UTF-8") from None


def _metadata(group: _Group, stem: str, file: BinaryIO) -> dict[str, Any]:
    data = _sidecar(group, stem, ".json", file)
    return {} if data is None else parse_object(data)


def _sidecar(group: _Group, stem: str, kind: str, file: BinaryIO) -> bytes | None:
    """Return the text or metadata of an image: its own, else that of the key."""
    place = group.place(stem + kind) or group.place(kind)
    if place is None:
        return None
    offset, size = place
    if size > MAX_SIDECAR:
        raise MediaError("bad-record", f"its {kind} has more than {MAX_SIDECAR:,} bytes; shorten it")
    return _read_at(file, offset, size)


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read a part; the position does not matter, because tarfile seeks to every header."""
    file.seek(offset)
    return file.read(size)
