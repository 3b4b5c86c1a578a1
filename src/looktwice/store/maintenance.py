"""Maintain a whole table: compact, erase for good, measure sizes on disk, export."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from looktwice.errors import Damaged, StoreError, UsageError, first_line
from looktwice.store.ann import behind
from looktwice.store.lance import MISSING, is_conflict, plain_errors, retry
from looktwice.store.location import Location
from looktwice.store.schema import vectors_of

log = logging.getLogger(__name__)

KEEP_VERSIONS = timedelta(days=7)
SMALL_FRAGMENTS = 32
OLD_VERSIONS = 32
SMALL_WRITE = 256
"""Fewer rows than this in one commit count as a small write."""
_BATCH = 4096


def tidy(table: Any) -> None:
    """Merge small fragments, bring the index up to date and drop versions older than KEEP_VERSIONS."""
    try:
        retry(lambda: table.optimize(cleanup_older_than=KEEP_VERSIONS))
    except (OSError, RuntimeError, ValueError) as error:
        if not is_conflict(error):
            raise
        log.info("Other processes write to this table; its files are merged after the next run.")


def tidy_after_write(table: Any, rows: int, check: Callable[[], None]) -> None:
    """Merge small files after a write of `rows` rows, if many small writes have made a table slow.

    The more rows a table has, the more files are tolerated, so that the rows rewritten per write stay bounded.
    Large writes are left to `Table.tidy` at the end of their run. A failure is only logged: the rows are written.
    `check` is called before older versions are read.
    """
    if rows >= SMALL_WRITE:
        return
    try:
        if table.stats()["fragment_stats"]["num_small_fragments"] > max(SMALL_FRAGMENTS, table.count_rows() // 5000):
            check()
            tidy(table)
    except (OSError, RuntimeError, ValueError) as error:
        log.warning("Small files could not be merged (%s); run looktwice compact.", first_line(error))


def is_untidy(table: Any) -> bool:
    """Return whether compacting pays: search has become slow, or many old versions are kept.

    A few small fragments or old versions are not worth a rewrite.
    """
    if table.stats()["fragment_stats"]["num_small_fragments"] > SMALL_FRAGMENTS:
        return True
    if any(behind(index) for index in table.list_indices()):
        return True
    # A table of replaced rows, such as the ledger, has one fragment and many versions.
    made = [version["timestamp"] for version in table.list_versions()]
    return len([at for at in made if datetime.now(at.tzinfo) - at > KEEP_VERSIONS]) > OLD_VERSIONS


def rewrite(database: Any, table: Any, place: object) -> Any:
    """Rewrite a table with only its live rows, drop all older versions and indices, and return the new handle.

    Compaction alone keeps a deleted row's bytes while few rows of its fragment are deleted, and transaction files keep
    deletions. The new version is committed before the old files are removed. Nobody else may write meanwhile, which is
    for the caller to see to in a bucket; a commit in between is noticed, and the rewrite undone.
    """
    table.checkout_latest()
    read = table.version
    rows = table.search().to_batches(_BATCH)
    # The schema's metadata carries the declared key along.
    fresh = database.create_table(table.name, data=rows, schema=table.schema, mode="overwrite")
    if fresh.version != read + 1:
        fresh.restore(fresh.version - 1)
        raise StoreError(f"{place} was written to by another process, so it was not purged; stop that and try again.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of other processes' readers; docs do the same
        fresh.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
    return fresh


def sizes(location: Location, items: Any, rows: int) -> dict[str, int]:
    """Return bytes on disk by part; they add up to all files of the table.

    `vectors` counts the float16 numbers, `items` the rest of the live item data, `versions` the files of older versions
    only. Raises Damaged if files of the live items are missing.
    """
    live = _live_bytes(location, items)
    total = location.size()
    in_items = location.size("items.lance")
    vectors = min(live, rows * items.schema.field("vector").type.list_size * 2)
    index = location.size("items.lance/_indices")
    parts = {
        "items": live - vectors,
        "vectors": vectors,
        "index": index,
        "versions": in_items - live - index,
        "tokens": location.size("tokens.lance") + location.size("codebooks"),
        "previews": location.size("previews.lance"),
        "ledger": location.size("ledger.lance") + location.size("deleted.lance"),
    }
    return {**parts, "manifest": total - sum(parts.values()), "total": total}


def _live_bytes(location: Location, items: Any) -> int:
    """Return the bytes of the newest version's files. Raises Damaged if the data folder has fewer."""
    for _ in range(2):  # twice, as another process may commit or purge between the two measurements
        live = int(items.list_versions()[-1]["metadata"]["total_files_size"])
        if location.size("items.lance/data") >= live:
            return live
    raise Damaged(f"{location} is not whole: {MISSING}")


def export(items: Any, target: Path, dim: int) -> Path:
    """Write all items to `target`, vectors as float32 without padding, and return the file's path.

    A `target` that ends in .parquet is the file; any other is the folder for items.parquet. An interrupted export
    leaves nothing behind.
    """
    is_file = target.suffix == ".parquet" and not target.is_dir()
    path = target if is_file else target / "items.parquet"
    if path.exists() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} already exists; choose another name or remove it.")
    unfinished = path.with_name(f"{path.name}.tmp")
    new = [folder for folder in path.parents if not folder.exists()]
    with plain_errors(target, "exporting"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_parquet(items, unfinished, dim)
            unfinished.rename(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
                for folder in new:
                    folder.rmdir()
            raise
    return path


def _write_parquet(items: Any, path: Path, dim: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [field for field in items.schema if field.name != "vector"]
    schema = pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), dim))])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in items.search().to_batches(_BATCH):
            flat = np.ascontiguousarray(vectors_of(batch, dim), np.float32).ravel()
            columns = [batch[field.name] for field in fields]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
            writer.write_batch(pa.record_batch([*columns, vectors], schema=schema))


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return 16 hex digits over all rows, independent of their order: the sum of their hashes."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()[:8], "big")
    return f"{total % 2**64:016x}"
