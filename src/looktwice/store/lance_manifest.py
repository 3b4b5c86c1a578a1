"""Refuse Lance tables that send their reader elsewhere, before LanceDB opens them.

A version's manifest is a protobuf message between its length and a footer of 16 bytes. Its field `base_paths` names
folders or addresses outside the table, whose files LanceDB would read. looktwice never writes that field.

Opening a table reads its newest version only, so that one is checked then, and the older ones before LanceDB reads
them: a table that many small writes have made has thousands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from looktwice.errors import Damaged
from looktwice.store.location import Location

CATALOGUE = "__manifest"
"""A folder in which LanceDB looks up where a table lies; looktwice never makes one."""

MOST_BYTES = 2**28
"""Largest manifest of one version, or list of deleted rows: millions of data files, or of rows."""

_BASE_PATHS, _FRAGMENTS = 18, 2
_ID, _DELETED = 1, 3  # of a fragment
_READ_VERSION, _NUMBER = 2, 3  # of its list of deleted rows
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FOOTER, _MAGIC = 16, b"LANC"
_COUNTING_DOWN = re.compile(r"\d{20}\.manifest")
"""Names of versions, of which the newest is the smallest; LanceDB knows other names, too."""


def check_lance(location: Location, *names: str) -> None:
    """Raise Damaged if one of these Lance tables, perhaps a stranger's, leads out of its folder or is not whole."""
    if location.exists(CATALOGUE):
        raise Damaged(f"{location} contains {CATALOGUE}, which may name tables elsewhere; remove it.")
    for name in names:
        location.check(f"{name}.lance")
        versions = _versions(location, name)
        _check(location, name, versions[:1] if all(map(_COUNTING_DOWN.fullmatch, versions)) else versions)


def check_history(location: Location, name: str) -> None:
    """Raise Damaged as `check_lance`, for every version; needed before LanceDB reads older ones."""
    _check(location, name, _versions(location, name))


def _versions(location: Location, name: str) -> list[str]:
    """Return the names of the manifests, the newest one first. Raises Damaged for a folder among them."""
    folder = f"{name}.lance/_versions"
    found = location.list(folder)
    for file in found:
        if not file.endswith(".manifest") and location.list(f"{folder}/{file}"):  # LanceDB looks into folders too
            raise Damaged(f"{location}/{folder}/{file} is a folder, which looktwice does not make; remove it.")
    return [file for file in found if file.endswith(".manifest")]


def _check(location: Location, name: str, versions: Iterable[str]) -> None:
    deleted: set[str] = set()
    for file in versions:
        with suppress(FileNotFoundError):  # another process may tidy up
            deleted |= _check_version(location, f"{name}.lance/_versions/{file}")
    for file in deleted:
        with suppress(FileNotFoundError):
            _check_deletions(location, f"{name}.lance/_deletions/{file}")


def _check_version(location: Location, file: str) -> set[str]:
    """Raise Damaged for a manifest that leads out of its table; return the names of its lists of deleted rows."""
    data = location.read_bytes(file, MOST_BYTES)
    try:
        found = list(fields(message(data)))
        deleted = {_deletions(value) for number, value in found if number == _FRAGMENTS} - {""}
    except (ValueError, IndexError, TypeError):
        raise Damaged(f"{location}/{file} is damaged; restore it from a copy.") from None
    if any(number == _BASE_PATHS for number, _ in found):
        raise Damaged(f"{location}/{file} names files outside the table; use the folder that it was copied from.")
    return deleted


def _deletions(fragment: bytes) -> str:
    """Return the name of a fragment's list of deleted rows, "" if it has none.

    A message that comes twice is one, in two parts.
    """
    parts = list(fields(fragment))
    if all(number != _DELETED for number, _ in parts):
        return ""
    listed = dict(fields(b"".join(value for number, value in parts if number == _DELETED)))
    return f"{dict(parts).get(_ID, 0)}-{listed.get(_READ_VERSION, 0)}-{listed.get(_NUMBER, 0)}.arrow"


def _check_deletions(location: Location, file: str) -> None:
    """Raise Damaged for a list of deleted rows with lengths that are not its own; they end LanceDB's process."""
    import pyarrow as pa

    try:
        pa.ipc.open_file(pa.py_buffer(location.read_bytes(file, MOST_BYTES))).read_all()
    except (pa.ArrowException, OSError, MemoryError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise Damaged(f"{location}/{file} is damaged; restore it from a copy.") from None


def message(data: bytes) -> bytes:
    """Return the protobuf message of a manifest file. Raises ValueError if the file is not whole."""
    start = int.from_bytes(data[-_FOOTER : 8 - _FOOTER], "little")
    end = len(data) - _FOOTER
    if not data.endswith(_MAGIC) or not 0 <= start <= end - 4:
        raise ValueError("its footer is damaged")
    if int.from_bytes(data[start : start + 4], "little") != end - start - 4:
        raise ValueError("it is cut")
    return data[start + 4 : end]


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message. Raises ValueError or IndexError if it is not whole.

    A value is an int or bytes.
    """
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = varint(data, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, place = varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {tag >> 3} is of kind {kind}")
        yield tag >> 3, data[place : place + size]
        place += size
    if place != len(data):
        raise ValueError("it is cut")


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number of 7-bit groups at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, place
        if shift > 63:
            raise ValueError("a number has more than 10 bytes")
