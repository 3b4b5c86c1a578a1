"""Create, open and change a `Table` on disk. Every change takes the writer's lock; reading never waits."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError, demand_list
from looktwice.store import ann, maintenance, tokens
from looktwice.store.conditions import Where
from looktwice.store.create import create_tables, open_location
from looktwice.store.lance import batched, connect, filtering, is_in, plain_errors, refuse_forked
from looktwice.store.ledger import Ledger
from looktwice.store.location import Location, locate
from looktwice.store.lock import WriterLock
from looktwice.store.manifest import FORMAT
from looktwice.store.migrate import migrate
from looktwice.store.reader import Snapshot, TableReader
from looktwice.store.schema import Row, TokenRow, check_rows, rows_to_arrow
from looktwice.types import EncoderInfo

_CHUNK, _AT_ONCE = 2000, 100_000


class Table(TableReader):
    """One folder with items, their vectors, their tokens and a ledger. Get one with `create` or `open`.

    A table object sees the version at its opening or at the last write through it. `snapshot` returns the newest
    version, whoever wrote it. Threads may share a table object, but only one of them may write at a time.
    """

    def __init__(self, location: Location) -> None:
        with plain_errors(location, "opening the table"):
            database = connect(location)
        super().__init__(location, database)
        self._lock = WriterLock(location)
        self.ledger: Ledger = Ledger(location, lambda: self._failures, self.writer)

    @classmethod
    def create(
        cls,
        path: str | Path | Location,
        encoder: EncoderInfo,
        columns: Mapping[str, type] | None = None,
        roots: Sequence[str] = (),
    ) -> Table:
        """Create an empty table; `columns` are metadata keys to filter on. Raises UsageError if the path is in use."""
        return cls(create_tables(locate(path), encoder, columns or {}, roots))

    @classmethod
    def open(cls, path: str | Path | Location, encoder: EncoderInfo | None = None) -> Table:
        """Open a table. Raises UsageError if it does not exist, Mismatch if another encoder made it."""
        return cls(open_location(locate(path), encoder))

    def snapshot(self) -> Snapshot:
        """Return the newest version as a view that never changes; this takes a few milliseconds at most."""
        return Snapshot(self.location, self._database, self._matrices)

    @contextmanager
    def writer(self, wait: float = 0) -> Iterator[Table]:
        """Hold the writer's lock, waiting up to `wait` seconds for it. Raises Locked.

        The methods that change the table take the lock themselves; hold it around several of them.
        """
        refuse_forked()  # before the lock, because a forked child shares it with its parent
        with self._lock.hold(wait) as first:
            if first:
                self._open_newest()
                if self.manifest.format < FORMAT:
                    self.manifest = migrate(self._failures, self.manifest, self.location)
            try:
                yield self
            finally:
                self._writes += 1

    def refresh(self) -> None:
        """Move to the newest version. Deprecated: use `snapshot`."""
        warnings.warn("Table.refresh is deprecated; use Table.snapshot().", DeprecationWarning, stacklevel=2)
        self._open_newest()

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows in one atomic commit; a row with a known id replaces it and drops tokens of other bytes.

        Raises UsageError, and writes nothing, for a row that cannot be stored: a vector of another length, zero or not
        finite; a repeated id; metadata that does not fit a declared column.
        """
        if not rows:
            return
        check_rows(rows, self.manifest.encoder.dim)
        data = rows_to_arrow(rows, self._schema, self.columns)
        with self.writer(), plain_errors(self.path, "adding items"):
            tokens.drop_stale(self._tokens, {row.id: row.sha256 for row in rows})
            self._items.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)
            maintenance.tidy_after_write(self._items, len(rows))

    def delete(self, ids: Iterable[str] | None = None, *, where: Where | None = None) -> int:
        """Delete items by id or by filter, with their tokens and ledger lines. Return how many were deleted.

        The items go last, in commits of 100,000 ids: after an interruption the same call finishes the work.
        """
        if (ids is None) == (where is None):
            raise UsageError("delete takes either ids or a filter; pass exactly one of them.")
        demand_list(ids, "The ids to delete")
        with self.writer(), plain_errors(self.path, "deleting items"), filtering(where, self.filters) as sql:
            columns = ["id", "uri", "root"]
            if sql is None:
                found = self._lookup(ids or (), columns)
            else:
                found = self._items.search().where(sql).select(columns).to_arrow()
            for part in found.to_batches(_CHUNK):
                self.ledger.clear_items(part.to_pylist())
                self._tokens.delete(is_in("id", part["id"].to_pylist()))
            for some in batched(found["id"].to_pylist(), _AT_ONCE):
                self._items.delete(is_in("id", some))
        return len(found)

    def compact(self, purge: bool = False) -> None:
        """Merge small files, update the index and delete versions older than a week.

        With `purge` everything is rewritten and every older version is erased: no byte of a deleted row stays in the
        table's files. Other processes that still read an older version then fail and must open the table again.
        """
        with self.writer(), plain_errors(self.path, "compacting"):
            if not purge:
                for handle in (self._items, self._tokens, self._failures):
                    maintenance.tidy(handle)
                return
            self._items = maintenance.rewrite(self._database, self._items)
            self._tokens = maintenance.rewrite(self._database, self._tokens)
            self._failures = maintenance.rewrite(self._database, self._failures)
            if self.manifest.index is not None:
                self.build_index()
            self.build_keys()

    def tidy(self) -> None:
        """Compact if it pays: after many small files, or many rows that the index does not cover yet."""
        with self.writer(), plain_errors(self.path, "tidying up"):
            for handle in (self._items, self._tokens, self._failures):
                if maintenance.is_untidy(handle):
                    maintenance.tidy(handle)

    def build_index(self) -> ann.IndexInfo:
        """Build the approximate index and measure its recall; a table below `ann.EXACT_ROWS` rows stays exact."""
        with self.writer(), plain_errors(self.path, "building the index"):
            rows = len(self)
            self.build_keys()
            self._note(index=None)  # search is exact until the new index is measured
            if rows < ann.EXACT_ROWS:
                ann.drop(self._items)
                return ann.IndexInfo("exact", rows)
            info = ann.build(self._space(), rows)
            self._note(index=info.as_mapping())
        return info

    def build_keys(self) -> None:
        """Index ids, hashes and keys of tokens for look-ups, if the table has `ann.EXACT_ROWS` rows or more."""
        with self.writer(), plain_errors(self.path, "indexing keys"):
            ann.build_keys(self._items, ["id", "sha256"])
            ann.build_keys(self._tokens, ["key"])

    def put_codes(self, rows: Sequence[TokenRow]) -> None:
        """Write visual tokens in one atomic commit; they replace those of the same item and token set."""
        with self.writer():
            tokens.put_codes(self._tokens, self.path, rows)
            maintenance.tidy_after_write(self._tokens, len(rows))

    def put_codebook(self, data: bytes) -> str:
        """Store a codebook and return its SHA-256 (hex), which `codebook` takes."""
        with self.writer():
            return tokens.put_codebook(self.location, data)

    def note_tokens(self, entry: Mapping[str, Any]) -> None:
        """Write a token set (a mapping with a `tokens_key`) into the manifest; it replaces one of the same key."""
        with self.writer():
            others = [known for known in self.manifest.tokens if known["tokens_key"] != entry["tokens_key"]]
            self._note(tokens=(*others, dict(entry)))

    def note_run(self, roots: Iterable[str], dtype: str | None) -> None:
        """Add the roots of a run, and the dtype that its encoder computes in, to the manifest."""
        with self.writer():
            before = self.manifest
            merged = tuple(dict.fromkeys((*before.roots, *roots)))
            dtypes = tuple(dict.fromkeys((*before.dtypes, *([dtype] if dtype else []))))
            if (merged, dtypes) != (before.roots, before.dtypes):
                self._note(roots=merged, dtypes=dtypes)

    def _note(self, **changes: Any) -> None:
        changed = replace(self.manifest, **changes)
        with plain_errors(self.path, "writing the manifest"):
            changed.write(self.location)
        self.manifest = changed
