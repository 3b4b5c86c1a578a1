"""Search nearest neighbours by cosine: exactly, or through the index with refinement.

Tables that fit are searched in memory (`matrix`), others by LanceDB. Both propose candidates only; `exact` scores them
from the stored vectors. Order: score descending, then id ascending.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from looktwice.errors import UsageError
from looktwice.store import exact
from looktwice.store.conditions import Where
from looktwice.store.lance import batched, filtering, is_in, plain_errors
from looktwice.store.matrix import MatrixCache, VectorMatrix
from looktwice.store.schema import Row, arrow_to_rows, stored_dim, vectors_of
from looktwice.types import Candidate

SLACK = 32
"""Rows requested beyond k, so that ties and LanceDB's own rounding at the cut are decided here."""

DEPTH = 100
"""Hits for which the recall of an index is measured; deeper searches look into all partitions."""

STREAM_FROM = 8
"""From this many queries on, one pass over all vectors beats one exact search per query."""

_BLOCK = 8192
_CHUNK = 2000
_AT_ONCE = 64  # queries in one call of the index; each brings its rows with their vectors


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """A LanceDB handle with the settings of a search: true dimension, filter columns, settings of the index.

    `cache` keeps the vectors of a table that is small enough; without an index, all searches then go through it.
    `version` is that of the handle, None if it must be asked.
    """

    table: Any
    place: object
    dim: int
    columns: Mapping[str, type]
    index: Mapping[str, Any] | None
    cache: MatrixCache = field(default_factory=MatrixCache)
    version: int | None = None

    def search(self, queries: Any, k: int, where: Where | None = None) -> list[list[Candidate]]:
        """Return the k nearest rows of each query [q, d] among those that match `where`."""
        units = exact.units_of(queries, self.dim)
        if k <= 0:
            raise UsageError(f"k must be at least 1, not {k}.")
        with plain_errors(self.place, "searching"), filtering(where, self.columns) as sql:
            if self.index is not None:
                return self._through_index(units, k, sql)
            matrix = self._matrix(len(units), sql)
            rows = None if matrix is None or sql is None else self._row_ids(sql)
            if matrix is not None and (rows is None or self._stands()):
                return matrix.search(units, k, rows)
            return self.stream(units, k, sql) if len(units) >= STREAM_FROM else [self._one(u, k, sql) for u in units]

    def _matrix(self, queries: int, where: str | None) -> VectorMatrix | None:
        """Return the matrix; a single filtered search only uses one that is there, as a filter reads fewer rows."""
        single = where is not None and queries < STREAM_FROM
        version = self.table.version if self.version is None else self.version
        return self.cache.known(version) if single else self.cache.get(self.table, version, self.dim, queries)

    def _stands(self) -> bool:
        """Return whether no other thread has written through the handle, so that row ids are those of the matrix."""
        return self.version is None or self.version == self.table.version

    def _row_ids(self, where: str) -> Any:
        found = self.table.search().where(where).select(["id"]).with_row_id(True).to_arrow()
        return found["_rowid"].to_numpy()

    def _through_index(self, units: exact.Vectors, k: int, where: str | None) -> list[list[Candidate]]:
        """Search all queries in one call; those whose answer is not certain are searched again, deeper."""
        parts = [units[start : start + _AT_ONCE] for start in range(0, len(units), _AT_ONCE)]
        return [found for part in parts for found in self._batch(part, k, where)]

    def _batch(self, units: exact.Vectors, k: int, where: str | None) -> Iterator[list[Candidate]]:
        if len(units) == 1:
            yield self._one(units[0], k, where)
            return
        rows = self._propose(units, k + SLACK, where)
        owner = rows["query_index"].to_numpy()
        for number, unit in enumerate(units):
            own = rows.filter(owner == number)
            best = self._best(own, unit, k)
            good = self._is_certain(own, best, k + SLACK) and not self._is_strange(own, best, k + SLACK, where)
            yield best if good else self._one(unit, k, where, 4 * (k + SLACK))

    def _one(self, unit: Any, k: int, where: str | None, wanted: int = 0) -> list[Candidate]:
        """Request more rows until the k-th is clearly better than any row that LanceDB may have left out."""
        wanted, everywhere = wanted or k + SLACK, False
        while True:
            found = self._propose(unit, wanted, where, everywhere)
            best = self._best(found, unit, k)
            if not everywhere and self._is_strange(found, best, wanted, where):
                everywhere = True
            elif self._is_certain(found, best, wanted):
                return best
            else:
                wanted *= 4

    def _most_probes(self, wanted: int, where: str | None) -> int:
        """Return in how many partitions a search looks, 0 for all.

        Few suffice for queries like those that the recall was measured with: neither filtered nor deeper. Indices of
        earlier versions do not say what such queries find.
        """
        if self.index is None or "nearest" not in self.index or where is not None or wanted > DEPTH + SLACK:
            return 0
        return int(self.index["nprobes"])

    def _is_strange(self, found: Any, best: Sequence[Candidate], wanted: int, where: str | None) -> bool:
        """Return whether few partitions were searched, and what they hold is further away than rows from each other.

        Such a query, a text among images perhaps, has its nearest rows in any partition.
        """
        if self.index is None or not self._most_probes(wanted, where):
            return False
        return len(found) < wanted or best[0].coarse < self.index["nearest"]

    def _best(self, found: Any, unit: Any, k: int) -> list[Candidate]:
        return exact.ranked(found["id"].to_pylist(), exact.cosines(vectors_of(found, self.dim), unit), k)

    @staticmethod
    def _is_certain(found: Any, best: Sequence[Candidate], wanted: int) -> bool:
        return len(found) < wanted or 1 - found["_distance"][-1].as_py() < best[-1].coarse - exact.ROUNDING

    def _propose(self, unit: Any, wanted: int, where: str | None, everywhere: bool = False) -> Any:
        padding = [(0, 0)] * (unit.ndim - 1) + [(0, stored_dim(self.dim) - self.dim)]
        query = np.pad(unit, padding).astype(np.float32)
        builder = self.table.search(query, vector_column_name="vector").distance_type("cosine").limit(wanted)
        if self.index is None:  # an interrupted build may have left an unmeasured index
            builder = builder.bypass_vector_index()
        else:
            # Without a maximum LanceDB reads every partition, with any minimum.
            most = 0 if everywhere else self._most_probes(wanted, where)
            builder = builder.minimum_nprobes(self.index["nprobes"]).maximum_nprobes(most)
            builder = builder.refine_factor(self.index["refine"])
        if where is not None:
            builder = builder.where(where, prefilter=True)
        return builder.select(["id", "vector", "_distance"]).to_arrow()

    def stream(self, units: exact.Vectors, k: int, where: str | None = None) -> list[list[Candidate]]:
        """Search many queries exactly in one pass over the vectors, with memory for one block at a time."""
        kept = [_TopK(k) for _ in units]
        quick = units.T.astype(np.float32)
        scan = self.table.search().select(["id", "vector"])
        for batch in (scan if where is None else scan.where(where)).to_batches(_BLOCK):
            names = batch["id"].to_numpy(zero_copy_only=False)
            rows = vectors_of(batch, self.dim).astype(np.float32)
            block = rows @ quick / np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
            for unit, column, mine in zip(units, np.ascontiguousarray(block.T), kept, strict=True):
                mine.add(names, rows, column, unit)
        return [exact.candidates(mine.ids, mine.scores) for mine in kept]


class _TopK:
    """The best k rows of one query so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.ids: Any = np.empty(0, object)
        self.scores: exact.Scores = np.empty(0, np.float32)

    def add(self, names: Any, rows: Any, proposed: exact.Scores, unit: Any) -> None:
        """Score those rows of a block that may be among the best, and keep the best."""
        places = exact.proposed(proposed, self.k)
        if len(self.scores) == self.k:
            places = places[proposed[places] >= self.scores[-1] - exact.ROUNDING]
        if places.size:
            own = exact.cosines(rows[places], unit)
            both = np.append(self.ids, names[places]), np.append(self.scores, own)
            self.ids, self.scores = exact.best(*both, self.k)


def find_images(items: Any, hashes: Iterable[str], dim: int) -> list[Row]:
    """Return the rows whose bytes have one of these SHA-256 sums; of rows with the same text, only one."""
    import pyarrow as pa

    rows: list[Row] = []
    seen: set[tuple[str, str | None, bool]] = set()
    for part in batched(dict.fromkeys(hashes), _CHUNK):
        for batch in items.search().where(is_in("sha256", part)).to_batches(_CHUNK):
            sums, texts, widths = (batch[name].to_pylist() for name in ("sha256", "text", "width"))
            keys = zip(sums, texts, [width > 0 for width in widths], strict=True)
            new = {key: place for place, key in enumerate(keys) if key not in seen}
            seen.update(new)
            rows += arrow_to_rows(batch.take(pa.array(new.values(), pa.int64())), dim)
    return rows
