"""Read a table: `TableReader` has the methods, `Snapshot` is one version that never changes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import StoreError, UnknownName
from looktwice.store import ann, deleted, maintenance, matrix, previews, tokens
from looktwice.store.conditions import Where
from looktwice.store.empty import why_empty
from looktwice.store.extras import extra_schema, open_extras
from looktwice.store.forged import demand_schema, demand_whole
from looktwice.store.lance import batched, filtering, plain_errors
from looktwice.store.lance_manifest import check_history
from looktwice.store.ledger import LedgerReader, check_ledger
from looktwice.store.location import Location
from looktwice.store.lookup import rows_of
from looktwice.store.manifest import Manifest
from looktwice.store.matrix import MatrixCache
from looktwice.store.schema import (
    Row,
    TokenRow,
    arrow_to_rows,
    check_items,
    declared,
    filterable,
    tokens_schema,
    vectors_of,
)
from looktwice.store.search import VectorSearch, find_images

if TYPE_CHECKING:
    from looktwice.types import Candidate, Encoder, FloatArray

_CHUNK = 2000
OPENINGS = 30
"""Most attempts to open a table that others change meanwhile."""


class TableReader:
    """The read-only methods of a table. Any number of threads may call them at the same time.

    A single call answers from one version. Several calls answer from the same version on a `Snapshot` only: a `Table`
    moves on with every write through it.
    """

    encoder: Encoder | None = None

    def __init__(self, location: Location, database: Any, matrices: MatrixCache | None = None) -> None:
        self.location = location
        self._database = database
        self._matrices = matrices or MatrixCache()
        self._trusted = False  # its older versions
        self._writes = 0  # through this object: see `_version`
        self._seen: tuple[int, Any, int] | None = None
        self._stamp: object = None  # of the version that `follow` has opened
        self._open_newest()
        self.ledger = LedgerReader(location, lambda: self._failures)

    @property
    def path(self) -> Path | str:
        """Return the folder of the table, or its uri on object storage."""
        return self.location.path

    def _open_newest(self) -> None:
        """Open the newest version: manifest first, because everything that it names was written before it."""
        with plain_errors(self.path, "opening the table"):
            for _ in range(OPENINGS):  # again if it was replaced meanwhile: its index must belong to these items
                manifest = Manifest.read(self.location)
                # New handles, because another thread may still be reading through the old ones.
                tokens_, items, failures = map(self._database.open_table, ("tokens", "items", "ledger"))
                extras = open_extras(self.location, self._database)
                if Manifest.read(self.location) == manifest:
                    break
            else:
                raise StoreError(f"{self.path} changed {OPENINGS} times while it was being opened; try again.")
        self.manifest, self._items, self._tokens, self._failures = manifest, items, tokens_, failures
        self._extras: dict[str, Any] = extras
        self._schema = self._items.schema
        self._check_schemas()
        self.columns = declared(self._schema)
        self.filters = filterable(self._schema)

    def _check_schemas(self) -> None:
        """Raise Damaged for columns that looktwice did not make."""
        check_items(f"the items in {self.path}", self._schema, self.manifest.encoder.dim)
        demand_schema(f"the tokens in {self.path}", self._tokens.schema, tokens_schema())
        check_ledger(f"the ledger in {self.path}", self._failures.schema)
        for name, table in self._extras.items():
            demand_schema(f"{name} in {self.path}", table.schema, extra_schema(name))

    def _check_history(self) -> None:
        """Check the older versions, before LanceDB reads them; once, as nobody else writes to an open table's past."""
        if not self._trusted:
            for name in (self._items.name, self._tokens.name, self._failures.name, *self._extras):
                check_history(self.location, name)
            self._trusted = True

    def follow(self) -> None:
        """Move to the newest version, where this view may move at all."""

    def __len__(self) -> int:
        with plain_errors(self.path, "counting items"):
            return int(self._items.count_rows())

    def count(self, where: Where | None = None) -> int:
        """Return how many items match a filter."""
        with plain_errors(self.path, "counting items"), filtering(where, self.filters) as sql:
            return int(self._items.count_rows(sql))

    def why_empty(self, where: Where) -> str:
        """Say which condition of a filter no item passes, in one sentence; "" if some items pass all of them."""
        return why_empty(self.count, where)

    def search(self, vector: Any, k: int, where: Where | None = None) -> list[Candidate]:
        """Return the k items nearest to `vector` [d] by cosine, best first; equal scores are ordered by id.

        `where` is a filter on the columns, in SQL or as a dict (see `conditions`). It is applied first: with n matching
        items, the result has min(k, n).
        Raises UsageError for an invalid filter or vector, UnknownName for an unknown column.
        """
        return self.search_many(np.asarray(vector)[None], k, where)[0]

    def search_many(self, vectors: Any, k: int, where: Where | None = None) -> list[list[Candidate]]:
        """Return the results of `search` for each row of `vectors` [q, d], faster than one by one."""
        return self._space().search(vectors, k, where)

    def get(self, ids: Sequence[str]) -> list[Row]:
        """Return the rows of `ids` in their order. Raises UnknownName for an unknown id."""
        found = {row.id: row for row in arrow_to_rows(self._lookup(ids), self.manifest.encoder.dim)}
        for id_ in ids:
            if id_ not in found:
                raise UnknownName("item", id_, self._some_ids())
        return [found[id_] for id_ in ids]

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """Return the vectors [n, d] of `ids` in their order, as stored. Raises UnknownName for an unknown id."""
        found = self._lookup(ids, ["id", "vector"])
        place = {id_: row for row, id_ in enumerate(found["id"].to_pylist())}
        for id_ in ids:
            if id_ not in place:
                raise UnknownName("item", id_, self._some_ids())
        rows: FloatArray = vectors_of(found, self.manifest.encoder.dim).astype(np.float32)
        return rows[[place[id_] for id_ in ids]]

    def rows(self, columns: Sequence[str] = ("id",), where: Where | None = None) -> Iterator[dict[str, Any]]:
        """Yield chosen columns of all items (any of the schema but the vector), in no particular order."""
        with plain_errors(self.path, "reading items"), filtering(where, self.filters) as sql:
            scan = self._items.search().select(list(columns))
            for batch in (scan if sql is None else scan.where(sql)).to_batches(_CHUNK):
                yield from demand_whole(batch).to_pylist()

    def lookup(self, ids: Iterable[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return chosen columns of those of `ids` that exist, in no particular order."""
        rows: list[dict[str, Any]] = self._lookup(ids, list(columns)).to_pylist()
        return rows

    def page(self, offset: int, limit: int, columns: Sequence[str] = ("id",)) -> list[dict[str, Any]]:
        """Return chosen columns of `limit` items from the `offset`-th on, in the order in which they are stored."""
        with plain_errors(self.path, "reading items"):
            found = self._items.search().select(list(columns)).offset(offset).limit(limit)
            rows: list[dict[str, Any]] = demand_whole(found.to_arrow()).to_pylist()
        return rows

    def find_images(self, hashes: Iterable[str]) -> list[Row]:
        """Return the rows whose bytes have one of these SHA-256 sums; of rows with the same text, only one."""
        with plain_errors(self.path, "reading items"):
            return find_images(self._items, hashes, self.manifest.encoder.dim)

    def find_pictures(self, hashes: Iterable[str]) -> list[Row]:
        """Deprecated name of `find_images`."""
        warnings.warn("find_pictures is deprecated; use find_images.", DeprecationWarning, stacklevel=2)
        return self.find_images(hashes)

    def hashes(self) -> dict[str, str]:
        """Return id -> SHA-256 (hex) of every item."""
        return {row["id"]: row["sha256"] for row in self.rows(["id", "sha256"])}

    def contents(self) -> str:
        """Return 16 hex digits over the ids, bytes and texts of all items, independent of their order."""
        return maintenance.digest(self.rows(["id", "sha256", "text"]))

    def preview(self, item_id: str, sha256: str | None = None) -> bytes | None:
        """Return the small WebP of an item's image, None if the table keeps none. `sha256` saves a look-up."""
        with plain_errors(self.path, "reading a preview"):
            if sha256 is None:
                sha256 = next((row["sha256"] for row in self.lookup([item_id], ["sha256"])), "")
            return previews.read(self._extras.get(previews.NAME), item_id, sha256)

    def previewed(self, ids: Iterable[str]) -> dict[str, str]:
        """Return id -> SHA-256 of the image for those of `ids` that have a preview."""
        with plain_errors(self.path, "reading previews"):
            return previews.hashes(self._extras.get(previews.NAME), ids)

    def deleted(self, items: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the items (root, id) that were deleted on purpose and have not come back."""
        with plain_errors(self.path, "reading what was deleted"):
            return deleted.find(self._extras.get(deleted.NAME), items)

    def read_codes(self, ids: Sequence[str], tokens_key: str) -> list[TokenRow | None]:
        """Return the visual tokens of `ids` in their order; None for an item without tokens of this set."""
        return tokens.read_codes(self._tokens, self.path, ids, tokens_key)

    @property
    def tokens_version(self) -> int:
        """Return a number that changes with every write to the stored tokens."""
        return int(self._tokens.version)

    def pending_tokens(self, tokens_key: str) -> Iterator[list[str]]:
        """Yield, in batches, the ids of images that still need tokens of this set."""
        return tokens.pending(self._items, self._tokens, self.path, tokens_key)

    def codebook(self, sha256: str) -> bytes:
        """Return a stored codebook. Raises StoreError if it is missing or damaged."""
        return tokens.read_codebook(self.location, sha256)

    @property
    def index_is_due(self) -> bool:
        """Return whether `build_index` pays: the vectors are too many for memory, or half as many again as indexed."""
        rows, built = len(self), self.manifest.index
        if built is not None:
            return rows >= ann.EXACT_ROWS and bool(rows >= 1.5 * built["rows"])
        return rows >= ann.EXACT_ROWS and matrix.size_of(rows, self.manifest.encoder.dim) > matrix.MOST_BYTES

    def info(self) -> dict[str, Any]:
        """Return counts and settings of the table, and the bytes of each part on disk, in total and per item."""
        with plain_errors(self.path, "measuring the table"):
            parts = maintenance.sizes(self.location, self._items, len(self))
        encoder = self.manifest.encoder
        return {
            "path": str(self.path),
            "format": self.manifest.format,
            "items": len(self),
            "failed": len(self.ledger),
            "tokens": int(self._tokens.count_rows()),
            "previews": {"side": self.manifest.previews, "count": self._count_extra(previews.NAME)},
            "deleted": self._count_extra(deleted.NAME),
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
        """Write vectors, ids and metadata to a .parquet file, or items.parquet in a folder. Return the file's path."""
        return maintenance.export(self._items, Path(target), self.manifest.encoder.dim)

    def _count_extra(self, name: str) -> int:
        return int(self._extras[name].count_rows()) if name in self._extras else 0

    def _space(self) -> VectorSearch:
        dim, index = self.manifest.encoder.dim, ann.active(self.manifest.index)
        items = self._items
        return VectorSearch(items, self.path, dim, self.filters, index, self._matrices, self._version(items))

    def _version(self, items: Any) -> int:
        """Return the version of a handle. LanceDB is asked once per handle and write, as the answer takes 0.1 ms."""
        writes, seen = self._writes, self._seen
        if seen is None or seen[0] != writes or seen[1] is not items:
            with plain_errors(self.path, "reading items"):
                self._seen = seen = (writes, items, int(items.version))
        return seen[2]

    def _lookup(self, ids: Iterable[str], columns: list[str] | None = None) -> Any:
        import pyarrow as pa

        items, schema = self._items, self._schema  # a purge in another thread replaces the handle, and all row ids
        known = self._matrices.known(version := self._version(items))
        with plain_errors(self.path, "reading items"):
            parts = [rows_of(items, version, known, part, columns) for part in batched(dict.fromkeys(ids), _CHUNK)]
        empty = (schema if columns is None else pa.schema([schema.field(name) for name in columns])).empty_table()
        return pa.concat_tables(parts) if parts else empty

    def _some_ids(self) -> list[str]:
        with plain_errors(self.path, "reading items"):
            return list(self._items.search().select(["id"]).limit(1000).to_arrow()["id"].to_pylist())


class Snapshot(TableReader):
    """The newest version of a table at the call of `Table.snapshot`. It never changes, even while others write.

    Threads may share it. It stays readable until a purge, or a compaction more than a week later, erases its files.
    """
