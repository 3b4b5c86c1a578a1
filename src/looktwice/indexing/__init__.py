"""Index items into a table, as `looktwice index` does: scan → read and hash → decode → encode → commit.

    index(table, scan(paths), encoder)                      both halves, in this process
    encode_batches(scan(paths), encoder, known=snapshot)    reads only, on any machine  ->  batches
    commit(table, batches)                                  the only writer

One bad file becomes a ledger line and never shifts a row. Rows are committed in atomic batches, so an interruption
loses at most the batch in flight. The same call then continues: items in the table with the same bytes are not encoded
again. Memory grows by eight bytes an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from looktwice.errors import UsageError
from looktwice.indexing.batches import EncodedBatch
from looktwice.indexing.committing import commit, write
from looktwice.indexing.encoding import PlannedEncoder, encode_batches, encode_with
from looktwice.indexing.planning import Planner
from looktwice.indexing.reading import Planned
from looktwice.indexing.report import IndexReport
from looktwice.sources import Scan, Source, Unreadable
from looktwice.store import Table
from looktwice.types import Encoder

__all__ = ["REASONS", "EncodedBatch", "IndexReport", "commit", "encode_batches", "index"]


def index(
    table: Table,
    sources: Iterable[Source | Unreadable],
    encoder: Encoder,
    *,
    batch_size: int = 64,
    max_failures: int | None = None,
    prune: bool = False,
    progress: Callable[[IndexReport], None] | None = None,
    threads: int = 2,
    restore: bool = False,
    encode: Callable[[Iterable[Planned]], Iterable[EncodedBatch]] | None = None,
) -> IndexReport:
    """Update a table from `sources`, usually the result of `sources.scan`.

    `batch_size` images are encoded at a time (fewer if they are large) and `threads` threads read ahead. `progress` is
    called with the report so far. `prune` removes items that the scanned folders, archives and lists no longer hold. It
    keeps the items of a place, or of a folder below, that has lost everything: an unmounted disk looks the same. Items
    that `Table.delete` removed stay away, unless `restore` brings them back. `encode` is another way to encode, such as
    `EncodingJob.on` with the workers of a cluster.

    Raises Locked, Mismatch (another encoder), StoreError (disk full), TooManyFailures beyond `max_failures`. After any
    of these, and after KeyboardInterrupt, the table is whole and the same call continues.
    """
    table.manifest.check(encoder.info, table.path)
    if prune and not isinstance(sources, Scan):
        raise UsageError(
            "prune=True needs the result of scan(), since a list of sources does not state its folders; pass a Scan."
        )
    side = table.manifest.previews
    encode = encode or PlannedEncoder(encoder, table, batch_size, threads, side).batches
    batches = encode_with(encode, sources, encoder.info, Planner(table, side, restore))
    with closing(batches):
        return write(table, batches, max_failures, prune, progress, compare=table.location.lock_file is None)


REASONS = {
    "duplicate-id": "another item already has this id",
    "no-direction": "the encoder returned a zero or non-finite vector",
    "encoder": "the encoder refused this item",
    "outdated": "another process changed the table after this item was compared with it",
}
"""Reasons that only indexing gives; `images.REASONS` and `sources.REASONS` hold the others."""
