"""The flow of `looktwice index`: scan → read and hash → decode → encode → commit.

    index(table, scan(paths), encoder)                      both halves, in this process
    encode_batches(scan(paths), encoder, known=snapshot)    reads only, on any machine  ->  batches
    commit(table, batches)                                  the only writer

One bad file becomes a ledger line and never shifts a row. Rows are committed in batches, each of them atomic, so an
interruption loses at most what was in flight, and the same call goes on from there: what is in the table with the same
bytes is not encoded again. Memory grows by eight bytes an item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from looktwice.errors import UsageError
from looktwice.indexing.batches import EncodedBatch
from looktwice.indexing.committing import commit, write
from looktwice.indexing.encoding import encode_batches
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
) -> IndexReport:
    """Bring a table up to date with `sources`, usually what `sources.scan` returned.

    `batch_size` images are encoded at a time (fewer where they are large) and `threads` read ahead. `progress` is
    called with the report so far. `prune` removes items that the scanned folders, archives and lists no longer hold,
    except where nothing at all is left of one, or of a folder below: a disk that is not mounted looks the same.

    Raises Locked, Mismatch (another encoder), StoreError (disk full), TooManyFailures beyond `max_failures`. Whatever
    it raises, KeyboardInterrupt included, the table is whole and the same call goes on from there.
    """
    table.manifest.check(encoder.info, table.path)
    if prune and not isinstance(sources, Scan):
        raise UsageError(
            "Only what scan() returned can be pruned: a list of sources does not say what it accounts for."
        )
    batches = encode_batches(sources, encoder, known=table, batch_size=batch_size, threads=threads)
    with closing(batches):
        return write(table, batches, max_failures, prune, progress, compare=False)


REASONS = {
    "duplicate-id": "another item has this id already",
    "no-direction": "the encoder gave a vector that is zero or not finite",
    "encoder": "the encoder refused this item",
    "outdated": "another process changed the table after this item was compared with it",
}
"""The ledger's words for failures that only arise while indexing; media.REASONS and sources.REASONS are the others."""
