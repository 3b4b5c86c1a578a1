"""Commit encoded batches to a table: the second half of indexing, and the only part that writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from looktwice.errors import StoreError, UsageError
from looktwice.indexing.batches import EncodedBatch
from looktwice.indexing.prune import prune_gone
from looktwice.indexing.report import IndexReport
from looktwice.indexing.writer import IndexWriter, Progress
from looktwice.store import LedgerEntry, Table


def commit(
    table: Table,
    batches: Iterable[EncodedBatch],
    *,
    max_failures: int | None = None,
    prune: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Write the batches of one or several calls of `encode_batches`, of this or another process.

    The table may have changed since the encoding. An id that another root has added since is refused (`duplicate-id`).
    An item that was unchanged then and has changed since becomes a failure (`outdated`). `prune` uses the scans that
    were read to their end. Raises like `index`.
    """
    return write(table, batches, max_failures, prune, progress, compare=True)


def write(
    table: Table,
    batches: Iterable[EncodedBatch],
    max_failures: int | None,
    prune: bool,
    progress: Progress | None,
    *,
    compare: bool,
    failed: Callable[[LedgerEntry], None] | None = None,
) -> IndexReport:
    """Write batches like `commit`; without `compare` they must come from this version, under this lock.

    `failed` is called with each failure.
    """
    with table.writer(), closing(IndexWriter(table, max_failures, progress, compare, failed)) as run:
        try:
            for batch in batches:
                run.take(batch)
            run.flush()
        except StoreError:
            raise
        except BaseException:  # above all an interrupt: commit what is encoded, so that no work is lost
            run.flush()
            raise
        if run.scans:
            prune_gone(run, delete=prune)
        elif prune:
            raise UsageError(
                "Nothing was pruned, because no scan was read to its end; run the same scan again to the end."
            )
        table.tidy()
        return run.report()
