"""`Table`: an index on disk. Everything that changes it demands the writer's lock; reading never waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from looktwice.errors import UnknownName, UsageError, demand_list
from looktwice.store import ann, maintenance, tokens
from looktwice.store.create import create_tables, open_folder
from looktwice.store.lance import batched, connect, filtering, is_in, plain_errors, refuse_forked
from looktwice.store.ledger import Ledger
from looktwice.store.lock import WriterLock
from looktwice.store.manifest import Manifest
from looktwice.store.schema import Row, TokenRow, arrow_to_rows, check_rows, declared, rows_to_arrow
from looktwice.store.search import Space, find_pictures
from looktwice.types import Candidate, EncoderInfo

_CHUNK, _AT_ONCE = 2000, 100_000


class Table:
    """One folder with items, their vectors, their tokens and a ledger. Make one with `create` or `open`.

    A table object sees the version that was current when it was opened, or when `refresh` or `writer` was last called.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.path = folder
        self.manifest = manifest
        self._lock = WriterLock(folder)
        with plain_errors(folder, "opening the table"):
            self._database = connect(folder)
            self._items = self._database.open_table("items")
            self._tokens = self._database.open_table("tokens")
            self._failures = self._database.open_table("ledger")
        self._schema = self._items.schema
        self.columns = declared(self._schema)
        self.ledger = Ledger(folder, lambda: self._failures, self.writer)

    @classmethod
    def create(
        cls,
        path: str | Path,
        encoder: EncoderInfo,
        columns: Mapping[str, type] | None = None,
        roots: Sequence[str] = (),
    ) -> Table:
        """Make an empty table; `columns` are metadata keys to filter on. Raises UsageError where something is there."""
        return cls(*create_tables(Path(path), encoder, columns or {}, roots))

    @classmethod
    def open(cls, path: str | Path, encoder: EncoderInfo | None = None) -> Table:
        """Open a table. Raises UsageError where there is none, Mismatch where it was made with another encoder."""
        return cls(*open_folder(Path(path), encoder))

    @contextmanager
    def writer(self, wait: float = 0) -> Iterator[Table]:
        """Hold the writer's lock, for up to `wait` seconds of waiting. Raises Locked.

        The methods that change the table take the lock themselves; hold it around several of them.
        """
        refuse_forked()  # before the lock, which a child shares with its parent
        first = not self._lock.held
        with self._lock.hold(wait):
            if first:
                self.refresh()
            yield self

    def refresh(self) -> None:
        """See the newest version, as if the table had just been opened."""
        with plain_errors(self.path, "opening the newest version"):
            for handle in (self._items, self._tokens, self._failures):
                handle.checkout_latest()
        self.manifest = Manifest.read(self.path)

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows in one atomic commit; a row whose id exists is replaced, and loses tokens of other bytes.

        Raises UsageError for a row that cannot be stored (vector of another length, zero or not finite; an id twice;
        metadata that does not fit a declared column): then nothing is written.
        """
        if not rows:
            return
        check_rows(rows, self.manifest.encoder.dim)
        data = rows_to_arrow(rows, self._schema, self.columns)
        with self.writer(), plain_errors(self.path, "adding items"):
            tokens.drop_stale(self._tokens, {row.id: row.sha256 for row in rows})
            self._items.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)

    def delete(self, ids: Iterable[str] | None = None, *, where: str | None = None) -> int:
        """Delete items by id or by filter, with their tokens and ledger lines; returns how many there were.

        The items go last, in one commit (100,000 ids each): where it is interrupted, the same call finishes the work.
        """
        if (ids is None) == (where is None):
            raise UsageError("Say either which ids to delete or a filter, not both and not neither.")
        demand_list(ids, "The ids to delete")
        with self.writer(), plain_errors(self.path, "deleting items"), filtering(where, self._schema.names) as sql:
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
        """Merge small files and bring the index up to date; versions older than a week go.

        With `purge` everything is written anew and every older version is erased: no byte of a deleted row stays in the
        table's files. Other processes that still read an older version then fail and have to open the table again.
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
        """Compact where it pays: many small files, or many rows that the index does not know yet."""
        with self.writer(), plain_errors(self.path, "tidying up"):
            for handle in (self._items, self._tokens, self._failures):
                if maintenance.is_untidy(handle):
                    maintenance.tidy(handle)

    def build_index(self) -> ann.IndexInfo:
        """Build the approximate index and measure its recall; a table below `ann.EXACT_ROWS` rows stays exact."""
        with self.writer(), plain_errors(self.path, "building the index"):
            rows = len(self)
            self.build_keys()
            self._note(index=None)  # until the new one is measured, search is exact
            if rows < ann.EXACT_ROWS:
                ann.drop(self._items)
                return ann.IndexInfo("exact", rows)
            info = ann.build(self._space(), rows)
            self._note(index=info.as_mapping())
        return info

    @property
    def index_is_due(self) -> bool:
        """Whether `build_index` pays: the table is large, and has no index or has grown by half since it was built."""
        rows, built = len(self), self.manifest.index
        return rows >= ann.EXACT_ROWS and (built is None or rows >= 1.5 * built["rows"])

    def build_keys(self) -> None:
        """Index what rows are looked up by where there are `ann.EXACT_ROWS` or more: ids, hashes, keys of tokens."""
        with self.writer(), plain_errors(self.path, "indexing keys"):
            ann.build_keys(self._items, ["id", "sha256"])
            ann.build_keys(self._tokens, ["key"])

    def put_codes(self, rows: Sequence[TokenRow]) -> None:
        """Write visual tokens in one atomic commit, replacing those of the same item and token set."""
        with self.writer():
            tokens.put_codes(self._tokens, self.path, rows)

    def put_codebook(self, data: bytes) -> str:
        """Store a codebook; returns its SHA-256 (hex), by which `codebook` finds it."""
        with self.writer():
            return tokens.put_codebook(self.path, data)

    def note_tokens(self, entry: Mapping[str, Any]) -> None:
        """Write a token set (a mapping with a `tokens_key`) into the manifest, replacing one of the same key."""
        with self.writer():
            others = [known for known in self.manifest.tokens if known["tokens_key"] != entry["tokens_key"]]
            self._note(tokens=(*others, dict(entry)))

    def note_run(self, roots: Iterable[str], dtype: str | None) -> None:
        """Add the uris that a run indexes, and the dtype that its encoder computes in, to those in the manifest."""
        with self.writer():
            before = self.manifest
            merged = tuple(dict.fromkeys((*before.roots, *roots)))
            dtypes = tuple(dict.fromkeys((*before.dtypes, *([dtype] if dtype else []))))
            if (merged, dtypes) != (before.roots, before.dtypes):
                self._note(roots=merged, dtypes=dtypes)

    def __len__(self) -> int:
        with plain_errors(self.path, "counting items"):
            return int(self._items.count_rows())

    def count(self, where: str | None = None) -> int:
        """Return how many items fulfil a filter."""
        with plain_errors(self.path, "counting items"), filtering(where, self._schema.names) as sql:
            return int(self._items.count_rows(sql))

    def search(self, vector: Any, k: int, where: str | None = None) -> list[Candidate]:
        """Return the k items nearest to `vector` [d] by cosine, best first; equal scores are ordered by id.

        `where` is a SQL condition on the columns and is applied first: with n items that fulfil it, min(k, n) come
        back. Raises UsageError for a filter or vector that cannot be used, UnknownName for an unknown column.
        """
        return self.search_many(np.asarray(vector)[None], k, where)[0]

    def search_many(self, vectors: Any, k: int, where: str | None = None) -> list[list[Candidate]]:
        """Return `search` of each row of `vectors` [q, d], cheaper than one by one."""
        return self._space().search(vectors, k, where)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Return the rows of `ids` in their order. Raises UnknownName for an id that is not there."""
        found = {row.id: row for row in arrow_to_rows(self._lookup(ids), self.manifest.encoder.dim)}
        for id_ in ids:
            if id_ not in found:
                raise UnknownName("item", id_, self._some_ids())
        return [found[id_] for id_ in ids]

    def rows(self, columns: Sequence[str] = ("id",), where: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield chosen columns of all items (any of the schema but the vector), in no particular order."""
        with plain_errors(self.path, "reading items"), filtering(where, self._schema.names) as sql:
            scan = self._items.search().select(list(columns))
            for batch in (scan if sql is None else scan.where(sql)).to_batches(_CHUNK):
                yield from batch.to_pylist()

    def lookup(self, ids: Iterable[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return chosen columns of those of `ids` that exist, in no particular order."""
        rows: list[dict[str, Any]] = self._lookup(ids, list(columns)).to_pylist()
        return rows

    def find_pictures(self, hashes: Iterable[str]) -> list[Row]:
        """Return the rows whose bytes have one of these SHA-256 sums; of those with the same text, one."""
        with plain_errors(self.path, "reading items"):
            return find_pictures(self._items, hashes, self.manifest.encoder.dim)

    def hashes(self) -> dict[str, str]:
        """Return id -> SHA-256 (hex) of every item."""
        return {row["id"]: row["sha256"] for row in self.rows(["id", "sha256"])}

    def contents(self) -> str:
        """Return 16 hex digits over the ids, bytes and texts of all items, in whatever order they lie."""
        return maintenance.digest(self.rows(["id", "sha256", "text"]))

    def read_codes(self, ids: Sequence[str], tokens_key: str) -> list[TokenRow | None]:
        """Return the visual tokens of `ids` in their order; None where an item has none of this set."""
        return tokens.read_codes(self._tokens, self.path, ids, tokens_key)

    def pending_tokens(self, tokens_key: str) -> Iterator[list[str]]:
        """Yield, in batches, the ids of pictures that still need tokens of this set."""
        return tokens.pending(self._items, self._tokens, self.path, tokens_key)

    def codebook(self, sha256: str) -> bytes:
        """Return a stored codebook. Raises StoreError where it is missing or damaged."""
        return tokens.read_codebook(self.path, sha256)

    def versions(self) -> list[maintenance.Version]:
        """Return the versions of the items that can still be read, oldest first."""
        with plain_errors(self.path, "listing versions"):
            return maintenance.versions(self._items)

    def at(self, version: int) -> Table:
        """Return this table with its items as they were at a version; for reading only."""
        known = [str(one.number) for one in self.versions()]
        if str(version) not in known:
            raise UnknownName("version", str(version), known)
        older = Table(self.path, replace(self.manifest, index=None))
        older._items.checkout(version)
        return older

    def info(self) -> dict[str, Any]:
        """Return what is in the table and how many bytes each part takes on disk, in all and per item."""
        with plain_errors(self.path, "measuring the table"):
            parts = maintenance.sizes(self.path, self._items, len(self))
        encoder = self.manifest.encoder
        return {
            "path": str(self.path),
            "format": self.manifest.format,
            "items": len(self),
            "failed": len(self.ledger),
            "tokens": int(self._tokens.count_rows()),
            "encoder": {"name": encoder.name, "revision": encoder.revision, "dim": encoder.dim},
            "dtypes": list(self.manifest.dtypes),
            "roots": list(self.manifest.roots),
            "columns": {name: kind.__name__ for name, kind in self.columns.items()},
            "index": dict(self.manifest.index) if self.manifest.index else {"kind": "exact"},
            "token_sets": [dict(entry) for entry in self.manifest.tokens],
            "bytes": parts,
            "bytes_per_item": {name: round(size / max(1, len(self)), 1) for name, size in parts.items()},
        }

    def export(self, target: str | Path) -> Path:
        """Write vectors, ids and metadata to a .parquet file, or items.parquet in a folder; returns the file's path."""
        return maintenance.export(self._items, Path(target), self.manifest.encoder.dim)

    def _space(self) -> Space:
        manifest = self.manifest
        return Space(self._items, self.path, manifest.encoder.dim, self._schema.names, manifest.index)

    def _lookup(self, ids: Iterable[str], columns: list[str] | None = None) -> Any:
        import pyarrow as pa

        parts = []
        with plain_errors(self.path, "reading items"):
            for part in batched(dict.fromkeys(ids), _CHUNK):
                found = self._items.search().where(is_in("id", part))
                parts.append((found if columns is None else found.select(columns)).to_arrow())
        schema = self._schema
        empty = (schema if columns is None else pa.schema([schema.field(name) for name in columns])).empty_table()
        return pa.concat_tables(parts) if parts else empty

    def _some_ids(self) -> list[str]:
        with plain_errors(self.path, "reading items"):
            return list(self._items.search().select(["id"]).limit(1000).to_arrow()["id"].to_pylist())

    def _note(self, **changes: Any) -> None:
        changed = replace(self.manifest, **changes)
        with plain_errors(self.path, "writing the manifest"):
            changed.write(self.path)
        self.manifest = changed
