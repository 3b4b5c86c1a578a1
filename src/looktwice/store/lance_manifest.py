"""Refuse Lance tables that send their reader elsewhere, before LanceDB opens them.

A version's manifest is a protobuf message between its length and a footer of 16 bytes. Its field `base_paths` names
folders or addresses outside the table, whose files LanceDB would read. looktwice never writes that field.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from looktwice.errors import Damaged
from looktwice.store.location import Location

CATALOGUE = "__manifest"
"""A folder in which LanceDB looks up where a table lies; looktwice never makes one."""

MOST_BYTES = 2**28
"""Largest manifest of one version, or list of deleted rows: millions of data files, or of rows."""

_BASE_PATHS = 18
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FOOTER, _MAGIC = 16, b"LANC"


def check_lance(location: Location, name: str) -> None:
    """Raise Damaged if the Lance table `name`, which may be a stranger's, leads out of its folder or is not whole.

    In a bucket it is not read, as each version would cost a request.
    """
    location.check(f"{name}.lance")
    if not isinstance(location.path, Path):
        return
    if location.exists(CATALOGUE):
        raise Damaged(f"{location} contains {CATALOGUE}, which may name tables elsewhere; remove it.")
    folder = f"{name}.lance/_versions"
    for file in location.list(folder):
        if file.endswith(".manifest"):
            with suppress(FileNotFoundError):  # another process may tidy up
                _check(location, f"{folder}/{file}")
        elif location.list(f"{folder}/{file}"):  # LanceDB looks into folders too
            raise Damaged(f"{location}/{folder}/{file} is a folder, which looktwice does not make; remove it.")
    for file in location.list(f"{name}.lance/_deletions"):
        if file.endswith(".arrow"):
            with suppress(FileNotFoundError):
                _check_deletions(location, f"{name}.lance/_deletions/{file}")


def _check(location: Location, file: str) -> None:
    data = location.read_bytes(file, MOST_BYTES)
    try:
        strays = _BASE_PATHS in fields(message(data))
    except (ValueError, IndexError):
        raise Damaged(f"{location}/{file} is damaged; restore it from a copy.") from None
    if strays:
        raise Damaged(f"{location}/{file} names files outside the table; use the folder that it was copied from.")


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


def fields(data: bytes) -> Iterator[int]:
    """Yield the numbers of the fields of a protobuf message. Raises ValueError or IndexError if it is not whole."""
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        yield tag >> 3
        kind = tag & 7
        if kind == _VARINT:
            _, place = varint(data, place)
        elif kind == _BYTES:
            size, place = varint(data, place)
            place += size
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {tag >> 3} is of kind {kind}")
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
