"""Read images out of Parquet files: a row group at a time, the last ones kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any, BinaryIO, TypeAlias

from looktwice.errors import MediaError, first_line

IMAGE = "image"
"""The column of images."""

Opener: TypeAlias = Callable[[str], BinaryIO]

_lock = Lock()


def read_row(uri: str, number: int, opener: Opener) -> bytes:
    """Return the image of one row. Raises MediaError."""
    try:
        with _lock:
            group, first = _group_of(open_parquet(uri, opener).metadata, number)
            cell = _images(uri, group, opener)[number - first].as_py()
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise MediaError("truncated", f"the row cannot be read: {first_line(error)}") from None
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise MediaError("empty", "the row has no image")
    return data


@lru_cache(maxsize=16)
def open_parquet(uri: str, opener: Opener) -> Any:
    """Open a Parquet file; its footer is read once."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(opener(uri))


def holds_bytes(schema: Any) -> bool:
    """Return whether the images are in the file itself: not as texts, which are paths or uris."""
    import pyarrow as pa

    kind = schema.field(IMAGE).type if IMAGE in schema.names else pa.string()
    return not pa.types.is_string(kind) and not pa.types.is_large_string(kind)


def _group_of(metadata: Any, number: int) -> tuple[int, int]:
    """Return the row group that holds a row, and the number of its first row."""
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if number < first + rows:
            return group, first
        first += rows
    raise IndexError("the file has fewer rows")


@lru_cache(maxsize=4)
def _images(uri: str, group: int, opener: Opener) -> Any:
    return open_parquet(uri, opener).read_row_group(group, columns=[IMAGE])[IMAGE]
