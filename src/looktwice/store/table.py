"""Create, open and change a `Table` on disk. Every change takes the writer's lock; reading never waits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError, demand_list
from looktwice.store import ann, deleted, maintenance, previews, segments, tokens
from looktwice.store.columns import create_columns, fill_columns, new_columns
from looktwice.store.conditions import Where
from looktwice.store.create import create_tables, open_location
from looktwice.store.erasing import DroppedTokens, erase_items, erase_sets
from looktwice.store.extras import make_extra
from looktwice.store.lance import connect, filtering, plain_errors, refuse_forked, upsert
from looktwice.store.ledger import Ledger
from looktwice.store.location import Location, locate
from looktwice.store.lock import WriterLock
from looktwice.store.manifest import FORMAT, Manifest, check_side
from looktwice.store.migrate import migrate
from looktwice.store.previews import PreviewRow
from looktwice.store.reader import Snapshot, TableReader
from looktwice.store.schema import Row, TokenRow, check_rows, rows_to_arrow
from looktwice.store.stamp import stamp_of
from looktwice.store.upsert_report import UpsertReport
from looktwice.types import Encoder, EncoderInfo


class Table(TableReader):
    """One folder with items, their vectors, their tokens and a ledger. Get one with `create` or `open`.

    A table object sees the version at its opening, or at the last write or search through it. `snapshot` returns the
    newest version, whoever wrote it. Threads may share a table object, but only one of them may write at a time.
    `encoder` is the one that `upsert` uses, once it is loaded.
    """

    def __init__(self, location: Location) -> None:
        with plain_errors(location, "opening the table"):
            database = connect(location)
        super().__init__(location, database)
        self.placement: Mapping[str, str] = {}
        self._lock = WriterLock(location)
        self.ledger: Ledger = Ledger(location, lambda: self._failures, self.writer)

    @classmethod
    def create(
        cls,
        path: str | Path | Location,
        encoder: EncoderInfo,
        columns: Mapping[str, type] | None = None,
        roots: Sequence[str] = (),
        previews: int = 0,
    ) -> Table:
        """Create an empty table; `columns` are metadata keys to filter on. Raises UsageError if the path is in use.

        `previews` is the longest side of the previews that it keeps, in pixels; 0 for none.
        """
        return cls(create_tables(locate(path), encoder, columns or {}, roots, previews))

    @classmethod
    def open(cls, path: str | Path | Location, encoder: EncoderInfo | None = None) -> Table:
        """Open a table. Raises UsageError if it does not exist, Mismatch if another encoder made it."""
        return cls(open_location(locate(path), encoder))

    @classmethod
    def open_or_create(
        cls,
        path: str | Path | Location,
        encoder: str | Encoder = "tiny-clip",
        *,
        columns: Mapping[str, type] | None = None,
        previews: int = 512,
        **placement: str,
    ) -> Table:
        """Open a table, or create an empty one for an encoder, given by name or loaded; add `columns` that it lacks.

        A new table keeps previews of `previews` pixels; see `create`. `placement` is `device` and `dtype` of the
        encoder, which loads when it is first used. Raises Mismatch if another encoder made the table.
        """
        table: Table = _upserting().open_or_create(path, encoder, columns or {}, previews, placement)
        return table

    def upsert(self, items: Iterable[Mapping[str, Any]], *, wait: float = 0, **how: Any) -> UpsertReport:
        """Insert items, or update those whose id is known; return the counts, and the failures one by one.

        An item is a dict: "id", "image" (a path, a PIL image, a NumPy array, bytes, a binary file or a data URI),
        "text" and "metadata". What is not given stays as it is; metadata is replaced as a whole. Nothing is encoded
        unless image or text have changed. A new key of the metadata with a number, a text or a bool becomes a column.

        `wait` are the seconds to wait for another writer; `how` are `batch_size`, `threads` and `progress`, as in
        `index`. Raises Locked, and like `index`; after any error the table is whole and the same call goes on.
        """
        report: UpsertReport = _upserting().upsert(self, items, wait=wait, **how)
        return report

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

    def follow(self) -> None:
        """Move to the newest version, whoever wrote it; this takes milliseconds if there is one, else 0.1."""
        if (now := stamp_of(self.location)) is None or now != self._stamp:
            self._open_newest()
        self._stamp = now

    def refresh(self) -> None:
        """Move to the newest version. Deprecated: use `snapshot`."""
        warnings.warn("Table.refresh is deprecated; use Table.snapshot().", DeprecationWarning, stacklevel=2)
        self._open_newest()

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows in one atomic commit; a row with a known id replaces it and drops tokens of other bytes.

        Raises UsageError, and writes nothing, for a row that cannot be stored: a vector of another length, zero or not
        finite; a repeated id; metadata that is not JSON. A value that does not fit its column is null there.
        """
        if not rows:
            return
        with self.writer(), plain_errors(self.path, "adding items"):
            check_rows(rows, self.manifest.encoder.dim)
            data = rows_to_arrow(rows, self._schema, self.columns)  # of the newest version, which the lock has opened
            fresh = {row.id: row.sha256 for row in rows}
            tokens.drop_stale(self._tokens, fresh)
            previews.drop_stale(self._extras.get(previews.NAME), fresh)
            upsert(self._items, "id", data)
            deleted.forget(self._extras.get(deleted.NAME), ((row.root, row.id) for row in rows))
            maintenance.tidy_after_write(self._items, len(rows), self._check_history)

    def put_previews(self, rows: Sequence[PreviewRow]) -> None:
        """Write previews in one atomic commit; they replace those of the same items."""
        if rows:
            with self.writer(), plain_errors(self.path, "writing previews"):
                previews.put(self._extra(previews.NAME), rows)

    def note_previews(self, side: int) -> None:
        """Keep previews of `side` pixels from now on, 0 for none. Raises UsageError outside 16 to 4,096."""
        check_side(side)
        with self.writer():
            self._note(lambda now: replace(now, previews=side))

    def delete(self, ids: Iterable[str] | None = None, *, where: Where | None = None, remember: bool = True) -> int:
        """Delete items by id or by filter, with all that belongs to them. Return how many were deleted.

        With `remember`, the next `index` does not bring them back from their folder or list.
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
            if remember and len(found):
                deleted.remember(self._extra(deleted.NAME), found.to_pylist())
            erase_items(found, self._items, self._tokens, self._extras.get(previews.NAME), self.ledger)
        return len(found)

    def add_columns(self, columns: Mapping[str, type]) -> dict[str, int]:
        """Make columns of metadata keys, filled from the stored metadata; return how many values did not fit each.

        Such a value is null in the column and stays in the metadata. A column that exists is filled where it has gaps,
        so that an interrupted call can be repeated. Raises UsageError for a name that cannot be a column, or that is
        one of another type.
        """
        with self.writer(), plain_errors(self.path, "adding columns"):
            added = new_columns(columns, self.columns)
            if added:
                create_columns(self._items, added)
                self._open_newest()
            return fill_columns(self._items, columns)

    def compact(self, purge: bool = False) -> None:
        """Merge small files, update the index and delete versions older than a week.

        With `purge` everything is rewritten and every older version is erased: no byte of a deleted row stays in the
        table's files. Other processes that still read an older version then fail and must open the table again.
        """
        with self.writer(), plain_errors(self.path, "compacting"):
            if not purge:
                return self._tidy(self._handles())
            self._note(lambda now: replace(now, tokens=tokens.only_codebooks(self.location, now.tokens)))
            fresh = [maintenance.rewrite(self._database, handle, self.path) for handle in self._handles()]
            self._items, self._tokens, self._failures, *extras = fresh
            self._extras = dict(zip(self._extras, extras, strict=True))
            self.build_keys() if self.manifest.index is None else self.build_index()

    def tidy(self) -> None:
        """Compact if it pays: after many small files, or many rows that the index does not cover yet."""
        with self.writer(), plain_errors(self.path, "tidying up"):
            self._tidy([handle for handle in self._handles() if maintenance.is_untidy(handle)])

    def _tidy(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            maintenance.tidy(handle)
        if self._items in handles and (known := ann.active(self.manifest.index)):
            self._use(ann.measured_again(self._space(), len(self), known))

    def build_index(self, spread: segments.Spread | None = None) -> ann.IndexInfo:
        """Build the approximate index, by workers with `spread`, and measure its recall; small tables stay exact."""
        with self.writer(), plain_errors(self.path, "building the index"):
            rows = len(self)
            self.build_keys()
            self._note(lambda now: replace(now, index=None))  # search is exact until the new one is measured
            if rows < ann.EXACT_ROWS:
                ann.drop(self._items)
                return ann.IndexInfo(ann.EXACT, rows)
            return self._use(ann.build(self._space(), rows, f"{self.path}/items.lance", spread))

    def _use(self, measured: ann.IndexInfo) -> ann.IndexInfo:
        info = ann.usable(measured, self.path)
        self._note(lambda now: replace(now, index=info.as_mapping()))
        if info.kind == ann.EXACT:
            ann.drop(self._items)
        return info

    def build_keys(self) -> None:
        """Index ids, hashes and keys of tokens for look-ups, if the table has `ann.EXACT_ROWS` rows or more."""
        with self.writer(), plain_errors(self.path, "indexing keys"):
            ann.build_keys(self._items, ["id", "sha256"])
            ann.build_keys(self._tokens, ["key"])
            if previews.NAME in self._extras:
                ann.build_keys(self._extras[previews.NAME], ["id"])

    def put_codes(self, rows: Sequence[TokenRow]) -> None:
        """Write visual tokens in one atomic commit; they replace those of the same item and token set."""
        with self.writer():
            tokens.put_codes(self._tokens, self.path, rows)
            maintenance.tidy_after_write(self._tokens, len(rows), self._check_history)

    def put_codebook(self, data: bytes) -> str:
        """Store a codebook and return its SHA-256 (hex), which `codebook` takes."""
        with self.writer():
            return tokens.put_codebook(self.location, data)

    def note_tokens(self, entry: Mapping[str, Any]) -> None:
        """Write a token set (a mapping with a `tokens_key`) into the manifest; it replaces one of the same key."""
        with self.writer():
            self._note(lambda now: now.with_tokens(entry))

    def drop_tokens(self, *, mllm: str = "", codec: str = "", key: str = "") -> list[DroppedTokens]:
        """Delete the token sets of this MLLM, this codec and this key, and return them; at least one must be named.

        Vectors and previews stay. The disk gets the bytes back at the next `compact(purge=True)`. After an interruption
        the same call finishes the work. Raises UnknownName if no set fits.
        """
        with self.writer(), plain_errors(self.path, "deleting tokens"):
            which = {"mllm": mllm, "codec": codec, "tokens_key": key}
            gone = erase_sets(which, self.manifest.tokens, self._tokens, self.ledger, self.location)
            self._note(lambda now: now.without_tokens([one.tokens_key for one in gone]))
        return gone

    def note_run(self, roots: Iterable[str], dtype: str | None) -> None:
        """Add the roots of a run, and the dtype that its encoder computes in, to the manifest."""
        new, computed = tuple(roots), (dtype,) if dtype else ()
        with self.writer():
            self._note(lambda now: now.with_run(new, computed))

    def _handles(self) -> list[Any]:
        self._check_history()  # who asks for all of them reads older versions
        return [self._items, self._tokens, self._failures, *self._extras.values()]

    def _extra(self, name: str) -> Any:
        """Return the handle of a table that exists only once it is needed."""
        if name not in self._extras:
            self._extras = {**self._extras, name: make_extra(self.location, self._database, name)}
        return self._extras[name]

    def _note(self, change: Callable[[Manifest], Manifest]) -> None:
        with plain_errors(self.path, "writing the manifest"):
            self.manifest = Manifest.update(self.location, change)


def _upserting() -> Any:
    """Return the flow that fills tables from memory: the one step upwards, so that people meet a single `Table`."""
    return import_module("looktwice.indexing.upserting")
