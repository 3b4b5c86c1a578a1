"""Count and write what one run of indexing made, in commits of a few thousand rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from looktwice.errors import Mismatch, TooManyFailures
from looktwice.indexing.batches import EncodedBatch, EncodedRow, Failed, Scanned, ScannedItem
from looktwice.indexing.failures import SKIPPED, Failures
from looktwice.indexing.planning import duplicate
from looktwice.indexing.report import IndexReport
from looktwice.indexing.seen import Roots, SeenIds
from looktwice.sources import HiddenPlaces
from looktwice.store import LedgerEntry, PreviewRow, Row, Table, unfit

COMMIT_ROWS = 4096
COMMIT_SECONDS = 10.0
PREVIEW_BYTES = 2**25
"""A commit follows after this many rows, seconds or bytes of previews; an interruption loses at most as much."""


Progress = Callable[[IndexReport], None]


class IndexWriter:
    """The counts and pending writes of one run. `started` marks its ledger entries."""

    def __init__(
        self,
        table: Table,
        max_failures: int | None,
        progress: Progress | None,
        compare: bool,
        failed: Callable[[LedgerEntry], None] | None = None,
    ) -> None:
        self._failed = failed
        self.table, self.max_failures, self.compare = table, max_failures, compare
        self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.count: Counter[str] = Counter()
        self.withheld: list[str] = []
        self.unseen: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.unfit: Counter[str] = Counter()
        self.hidden, self.torn = HiddenPlaces(), HiddenPlaces()
        self.failures = Failures(table.ledger)
        self.seen, self.roots = SeenIds(), Roots()
        self.scans: list[Scanned] = []
        self._progress = progress
        self._clock = self._committed = time.monotonic()
        self._reasons: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._noted: set[object] = set()
        self._rows: list[Row] = []
        self._previews: list[PreviewRow] = []
        self._fine: list[ScannedItem] = []
        self._failures: list[LedgerEntry] = []

    def close(self) -> None:
        self.seen.close()

    def take(self, batch: EncodedBatch) -> None:
        """Count a batch and keep it for the next commit."""
        self._note(batch)
        known = self._lookup(batch) if self.compare else {}
        before = len(self._fine)
        for one in batch.rows:
            self._take_row(one, known.get(one.row.id))
        for met in batch.unchanged:
            self._take_unchanged(met, known.get(met.id))
        fine = {met.id for met in self._fine[before:]}
        self._previews += [one for one in batch.previews if one.id in fine]
        self._formats.update(met.suffix for met in self._fine[before:])
        if sum(len(one.webp) for one in self._previews) >= PREVIEW_BYTES:
            self._flush_previews()
        for met in batch.deleted:
            self.count["deleted"] += self._claim(met)
        self.count["encoded"] += batch.encoded
        for failure in batch.failures:  # after the rows, as one failure too many ends the run
            self._take_failure(failure)
        if batch.scanned is not None:
            self.scans.append(batch.scanned)
        waiting = max(len(self._rows), len(self._fine), len(self._failures))
        if waiting >= COMMIT_ROWS or (waiting and time.monotonic() - self._committed >= COMMIT_SECONDS):
            self.flush()
        self._tell()

    def flush(self) -> None:
        """Commit the pending rows, and update the ledger."""
        rows, fine, failures = self._rows, self._fine, self._failures
        self._rows, self._fine, self._failures = [], [], []
        self._flush_previews()  # first, so that an interruption leaves no row without its preview
        self.table.add(rows)
        self.failures.clear([met.where for met in fine])
        self.failures.clear_own([met.id for met in fine if not met.root])
        self.failures.put(failures)
        self.table.build_keys()
        self._committed = time.monotonic()
        self._tell()

    def _flush_previews(self) -> None:
        previews, self._previews = self._previews, []
        self.table.put_previews(previews)

    def report(self) -> IndexReport:
        return IndexReport(
            **self.count,
            ignored=dict(self.ignored),
            withheld=tuple(self.withheld),
            unseen=dict(self.unseen),
            unfit=dict(self.unfit),
            reasons=dict(self._reasons),
            skipped=dict(self._skipped),
            formats=dict(self._formats),
            seconds=round(time.monotonic() - self._clock, 3),
        )

    def _note(self, batch: EncodedBatch) -> None:
        """Refuse another encoder; record roots and dtype before the first of their rows."""
        self.table.manifest.check(batch.encoder, self.table.path)
        if batch.reading not in (None, self.table.manifest.reading):
            raise Mismatch(
                f"{self.table.path} reads images by rules {self.table.manifest.reading}, this batch by rules "
                f"{batch.reading}; encode again with known=table.snapshot()."
            )
        if (about := (batch.roots, batch.encoder.dtype)) not in self._noted:
            self._noted.add(about)
            self.table.note_run(*about)

    def _lookup(self, batch: EncodedBatch) -> dict[str, dict[str, Any]]:
        ids = [*(one.row.id for one in batch.rows), *(met.id for met in batch.unchanged)]
        return {row["id"]: row for row in self.table.lookup(ids, ["id", "uri", "root", "sha256"])}

    def _take_row(self, one: EncodedRow, known: dict[str, Any] | None) -> None:
        row, met = one.row, one.met
        if known is not None and self.roots.keep(known["root"], row.root):
            return self._fail(_entry(met, "duplicate-id", duplicate(row.id, known["uri"])))
        if not self._claim(met):
            return None
        self.unfit.update(unfit(row.metadata, self.table.columns))
        self._rows.append(row)
        self._fine.append(met)
        self.count["updated" if one.known or known is not None else "added"] += 1
        self.count["metadata_only"] += one.same
        return None

    def _take_unchanged(self, met: ScannedItem, known: dict[str, Any] | None) -> None:
        if not self._claim(met):
            return
        now = None if known is None else (known["sha256"], known["root"])
        if self.compare and now != (met.sha256, met.root):
            self._fail(_entry(met, "outdated", "the table has changed since this item was read; index it again"))
            return
        self.count["unchanged"] += 1
        self._fine.append(met)

    def _take_failure(self, failure: Failed) -> None:
        self.hidden.add(failure.hides)
        self.torn.add(failure.hides if failure.torn else None)
        if failure.met is None or self._claim(failure.met):
            self._fail(failure.entry)

    def _claim(self, met: ScannedItem) -> bool:
        """Record an item and return whether its id is new. Another item with the id fails; the same one is skipped."""
        earlier = self.seen.add(met.id, met.uri)
        if earlier is not None and not (earlier == met.uri and met.root.endswith("/")):
            self._fail(_entry(met, "duplicate-id", duplicate(met.id, earlier)))
        return earlier is None

    def _fail(self, entry: LedgerEntry) -> None:
        if entry.stage == SKIPPED:
            self._skipped[entry.reason] += 1
            self._failures.append(replace(entry, at=self.started))
            return
        if self.failures.accepts(entry):
            self.count["accepted"] += 1
            return
        self.count["failed"] += 1
        self._reasons[entry.reason] += 1
        self._failures.append(replace(entry, at=self.started))
        if self._failed is not None:
            self._failed(entry)
        if self.max_failures is not None and self.count["failed"] > self.max_failures:
            raise TooManyFailures.beyond(self.max_failures, f"{self.count['failed']} items failed", self.table.path)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report())


def _entry(met: ScannedItem, reason: str, detail: str) -> LedgerEntry:
    return LedgerEntry(met.where, "scan", reason, detail, met.root, item_id=met.id)
