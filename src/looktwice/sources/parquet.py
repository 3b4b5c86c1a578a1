"""Read rows of Parquet files as items: `image` (bytes, a path or a uri), `text`, `id`; other columns are metadata.

Images inside the file have the uri `…/shard.parquet#row=12`. One row group is read at a time, with ranges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from looktwice.errors import MediaError, first_line
from looktwice.sources.records import Source, Unreadable, text_is_clean
from looktwice.sources.rows import IMAGE, holds_bytes, open_parquet
from looktwice.sources.uri import join_uri, open_uri, part_uri

ID, TEXT = "id", "text"


def scan_parquet(uri: str) -> Iterator[Source | Unreadable]:
    """Yield one item per row, in order; an unusable row is yielded as Unreadable."""
    try:
        file = open_parquet(uri, open_uri)
        light = [name for name in file.schema_arrow.names if name != IMAGE or not holds_bytes(file.schema_arrow)]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=light):
            for row in batch.to_pylist():
                yield _source(row, uri, number, IMAGE in file.schema_arrow.names)
                number += 1
    except MediaError as error:
        yield Unreadable.of(uri, uri, error, hides=uri)
    except (OSError, ValueError) as error:
        yield Unreadable(uri, uri, "bad-archive", f"it cannot be read as Parquet: {first_line(error)}", hides=uri)


def _source(row: dict[str, Any], uri: str, number: int, has_image: bool) -> Source | Unreadable:
    where = part_uri(uri, f"row={number}")
    name, image, text = row.pop(ID, None), row.pop(IMAGE, None), row.pop(TEXT, None)
    if not text_is_clean(metadata := _plain(row)) or not isinstance(text, str | None):
        return Unreadable(where, uri, "bad-record", "its text or metadata is not valid UTF-8", hides=uri)
    if not has_image and not (text or "").strip():
        return Unreadable(where, uri, "bad-record", "it has neither image nor text; add one of them", hides=uri)
    place = join_uri(uri, image) if isinstance(image, str) else where
    return Source(str(name if name is not None else number), place, uri, text, metadata, has_image)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that JSON holds; dates and others as text."""
    kinds = (str, int, float, bool, list, dict, type(None))
    return {name: value if isinstance(value, kinds) else str(value) for name, value in row.items()}
