"""Keep a small image of each item, as WebP: what is shown when the original is gone, or only lived in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from looktwice.store.lance import batched, is_in, remove, upsert

NAME = "previews"
_CHUNK = 500


class PreviewRow(NamedTuple):
    """The preview of an item: a WebP of the image whose bytes have this SHA-256 (hex)."""

    id: str
    sha256: str
    webp: bytes


def previews_schema() -> Any:
    """Return the Arrow schema of the table."""
    import pyarrow as pa

    texts = [pa.field("id", pa.string(), nullable=False), pa.field("sha256", pa.string())]
    return pa.schema([*texts, pa.field("webp", pa.large_binary())])


def put(table: Any, rows: Sequence[PreviewRow]) -> None:
    """Write previews in one commit; they replace those of the same items."""
    import pyarrow as pa

    data = pa.Table.from_pylist([row._asdict() for row in rows], schema=previews_schema())
    upsert(table, "id", data)


def read(table: Any | None, item_id: str, sha256: str) -> bytes | None:
    """Return the preview of an item; None if there is none of these bytes."""
    if table is None:
        return None
    rows = table.search().where(is_in("id", [item_id])).select(["sha256", "webp"]).to_arrow().to_pylist()
    return next((row["webp"] for row in rows if row["sha256"] == sha256), None)


def hashes(table: Any | None, ids: Iterable[str]) -> dict[str, str]:
    """Return id -> SHA-256 of those items that have a preview."""
    found: dict[str, str] = {}
    if table is None:
        return found
    for part in batched(ids, _CHUNK):
        rows = table.search().where(is_in("id", part)).select(["id", "sha256"]).to_arrow()
        found.update(zip(rows["id"].to_pylist(), rows["sha256"].to_pylist(), strict=True))
    return found


def drop(table: Any | None, ids: Iterable[str]) -> None:
    """Delete the previews of items; write nothing if there are none."""
    if table is None or not table.count_rows():
        return
    for part in batched(ids, _CHUNK):
        remove(table, is_in("id", part))


def drop_stale(table: Any | None, fresh: dict[str, str]) -> None:
    """Delete the previews of items (id -> sha256) whose bytes have changed."""
    drop(table, [name for name, sha256 in hashes(table, fresh).items() if sha256 != fresh[name]])
