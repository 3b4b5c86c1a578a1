"""Remember which items were deleted on purpose, so that the next `index` does not bring them back.

Only a hash of root and id is kept: after a purge no byte of a deleted item is left. Items without a root come back
only if a program names them again, so they are not remembered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from looktwice.store.lance import batched, is_in, remove, upsert

NAME = "deleted"
_CHUNK = 2000


def key(root: str, item_id: str) -> str:
    """Return what is kept of an item: the SHA-256 (hex) of its root, a zero byte and its id."""
    return hashlib.sha256(f"{root}\0{item_id}".encode("utf-8", "surrogatepass")).hexdigest()


def deleted_schema() -> Any:
    """Return the Arrow schema of the table."""
    import pyarrow as pa

    return pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("at", pa.timestamp("ms", tz="UTC"))])


def remember(table: Any, rows: Iterable[Mapping[str, str]]) -> None:
    """Remember items (id, root), in one commit."""
    import pyarrow as pa

    now = datetime.now(UTC)
    found = [{"key": key(row["root"], row["id"]), "at": now} for row in rows if row["root"]]
    if found:
        upsert(table, "key", pa.Table.from_pylist(found, schema=deleted_schema()))


def find(table: Any | None, items: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those of the items (root, id) that are remembered."""
    if table is None:
        return set()
    keys = {key(*item): item for item in items}
    found: set[tuple[str, str]] = set()
    for part in batched(keys, _CHUNK):
        rows = table.search().where(is_in("key", part)).select(["key"]).to_arrow()
        found.update(keys[one] for one in rows["key"].to_pylist())
    return found


def forget(table: Any | None, items: Iterable[tuple[str, str]]) -> None:
    """Forget items (root, id) that are in the table again; write nothing if none was remembered."""
    if table is None or not table.count_rows():
        return
    for part in batched((key(*item) for item in items), _CHUNK):
        remove(table, is_in("key", part))
