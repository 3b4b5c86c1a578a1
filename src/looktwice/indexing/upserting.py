"""Insert and update items by id, from memory: what `Table.open_or_create` and `Table.upsert` do.

It is indexing with other sources: `encode_batches` encodes, `write` commits, and an interruption loses as little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from looktwice.errors import Locked, MediaError, UsageError, demand_list
from looktwice.indexing.batches import EncodedBatch, EncodedRow, ScannedItem
from looktwice.indexing.committing import write
from looktwice.indexing.encoding import encode_batches
from looktwice.indexing.writer import Progress
from looktwice.sources import Source, Unreadable
from looktwice.sources.memory import check_record, item_id, memory_source, memory_uri, plain_metadata
from looktwice.sources.uri import MEMORY
from looktwice.store import LedgerEntry, Location, Table, batched, exists, metadata_json, read_metadata
from looktwice.store.schema import check_columns
from looktwice.store.upsert_report import UpsertFailure, UpsertReport
from looktwice.types import Encoder

MOST_COLUMNS = 100
"""Most columns that new keys of metadata become; further keys are kept, but cannot be filtered on."""

_KINDS: dict[type, type] = {bool: bool, str: str, int: float, float: float}
_LOOKUP = 512
_COLUMNS = ["id", "uri", "root", "text", "metadata", "width"]


def open_or_create(
    path: str | Path | Location,
    encoder: str | Encoder,
    columns: Mapping[str, type],
    previews: int,
    placement: Mapping[str, str],
) -> Table:
    """Open a table, or create it; missing `columns` are added. Raises Mismatch if another encoder made it."""
    if not exists(path):
        made = encoder if not isinstance(encoder, str) else _load(encoder, None, placement)
        try:
            Table.create(path, made.info, columns, previews=previews)
        except (UsageError, Locked):
            if not exists(path):  # else another process was faster
                raise
        encoder = made
    table = Table.open(path)
    table.placement = placement
    if isinstance(encoder, str):
        known = table.manifest.encoder
        table.encoder = None if encoder in (known.name, known.queries) else _load(encoder, None, placement)
    else:
        table.encoder = encoder
    if table.encoder is not None:
        table.manifest.check(table.encoder.info, table.path)
    if missing := {name: kind for name, kind in columns.items() if table.columns.get(name) is not kind}:
        table.add_columns(missing)
    return table


def encoder_of(table: Table) -> Encoder:
    """Return the encoder of a table, loaded once."""
    if table.encoder is None:
        known = table.manifest.encoder
        table.encoder = _load(known.name, known.revision, table.placement)
        table.manifest.check(table.encoder.info, table.path)
    return table.encoder


def upsert(
    table: Table,
    items: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 64,
    threads: int = 2,
    wait: float = 0,
    progress: Progress | None = None,
) -> UpsertReport:
    """Insert and update items by id; see `Table.upsert`."""
    demand_list(items, "The items")
    if isinstance(items, Mapping):
        raise UsageError("The items must be a list of dicts, not one dict; put it in [ ].")
    encoder = encoder_of(table)
    with table.writer(wait):
        run = _Upsert(table)
        batches = run.batches(items, encoder, batch_size, threads)
        done = write(table, batches, None, False, progress, compare=False, failed=run.note)
    return UpsertReport(
        inserted=done.added,
        updated=done.updated,
        metadata_only=done.metadata_only,
        unchanged=done.unchanged,
        failed=len(run.failures),
        encoded=done.encoded,
        failures=tuple(run.failures),
        columns=tuple(run.columns),
        unfit=done.unfit,
        seconds=done.seconds,
    )


class _Upsert:
    """One call of `upsert`, with its failures and the items of which only metadata changes."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.failures: list[UpsertFailure] = []
        self.columns: list[str] = []
        self._kept: dict[str, Mapping[str, Any]] = {}
        self._seen: set[str] = set()

    def note(self, entry: LedgerEntry) -> None:
        """Keep a failure for the report."""
        self.failures.append(UpsertFailure(entry.item_id, entry.reason, entry.detail))

    def batches(
        self, items: Iterable[Mapping[str, Any]], encoder: Encoder, batch_size: int, threads: int
    ) -> Iterator[EncodedBatch]:
        encoded = encode_batches(
            self._sources(items), encoder, known=self.table, batch_size=batch_size, threads=threads
        )
        with closing(encoded):
            for batch in encoded:
                yield batch
                if self._kept:
                    yield self._restated(encoder)

    def _sources(self, items: Iterable[Mapping[str, Any]]) -> Iterator[Source | Unreadable]:
        for chunk in batched(enumerate(items, 1), _LOOKUP):
            good = [named for number, value in chunk if (named := self._named(number, value))]
            self._declare([value["metadata"] for _, value in good if value.get("metadata")])
            known = {row["id"]: row for row in self.table.lookup([name for name, _ in good], _COLUMNS)}
            for name, value in good:
                try:
                    if (source := self._source(name, value, known.get(name))) is not None:
                        yield source
                except (MediaError, UsageError) as error:
                    yield _unusable(name, error)

    def _named(self, number: int, value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """Return an item with its id, or note why it has none; there is no place in the ledger for that."""
        name = ""
        try:
            name = item_id(value)
            check_record(value)
            if value.get("metadata"):
                value = {**value, "metadata": plain_metadata(value["metadata"])}
                metadata_json(value["metadata"])
            if name in self._seen:
                raise MediaError("duplicate-id", "the id occurs twice in one call, and the first item counts")
        except (MediaError, UsageError) as error:
            reason, detail = _reason(error)
            self.failures.append(UpsertFailure(name, reason, f"item {number}: {detail}"))
            return None
        self._seen.add(name)
        return name, value

    def _source(self, name: str, value: Mapping[str, Any], known: Mapping[str, Any] | None) -> Source | None:
        """Return the source of an item; None if only its metadata is given. What is not given stays as it is."""
        image, text = value.get("image"), value.get("text", known["text"] if known else None)
        metadata = value.get("metadata")
        if known is not None and "image" not in value and text == known["text"]:
            self._kept[name] = metadata if metadata is not None else _stored(known)
            return None
        if metadata is None:
            metadata = _stored(known) if known else {}
        if known is not None and "image" not in value and known["width"]:
            if known["uri"].startswith(MEMORY):
                raise MediaError("missing", "its image lived in memory only; pass the image with the new text")
            return Source(name, known["uri"], known["root"], text, metadata)
        if image is None and not (text or "").strip():
            raise MediaError("bad-record", "it has neither image nor text; add one of them")
        return memory_source(name, image, text, metadata)

    def _restated(self, encoder: Encoder) -> EncodedBatch:
        """Return the rows of items whose metadata alone was given, with the vectors that they have."""
        kept, self._kept = self._kept, {}
        rows, same = [], []
        for row in self.table.get(list(kept)):
            met = ScannedItem(row.id, row.uri, row.root, row.uri, row.sha256)
            if metadata_json(row.metadata) == metadata_json(kept[row.id]):
                same.append(met)
            else:
                rows.append(EncodedRow(met, replace(row, metadata=kept[row.id]), True, True))
        return EncodedBatch(encoder.info, tuple(rows), tuple(same))

    def _declare(self, many: Sequence[Mapping[str, Any]]) -> None:
        """Make columns of new keys that hold numbers, texts or bools, so that filters can name them."""
        new: dict[str, type] = {}
        for metadata in many:
            for key, value in metadata.items():
                if key in self.table.columns or key in new or type(value) not in _KINDS:
                    continue
                try:
                    check_columns({**self.table.columns, **new, key: _KINDS[type(value)]})
                except UsageError:
                    continue
                if len(self.table.columns) + len(new) < MOST_COLUMNS:
                    new[key] = _KINDS[type(value)]
        if new:
            self.table.add_columns(new)
            self.columns += new


def _stored(known: Mapping[str, Any]) -> Mapping[str, Any]:
    return read_metadata(known["metadata"])


def _unusable(name: str, error: MediaError | UsageError) -> Unreadable:
    return Unreadable(memory_uri(name), "", *_reason(error), item_id=name)


def _reason(error: MediaError | UsageError) -> tuple[str, str]:
    return (error.reason, error.detail) if isinstance(error, MediaError) else ("bad-record", str(error))


def _load(name: str, revision: str | None, placement: Mapping[str, str]) -> Encoder:
    from looktwice.encode import load_encoder

    how: dict[str, Any] = dict(placement)
    return load_encoder(name, revision=revision, **how)
