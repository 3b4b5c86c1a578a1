"""Keep the vectors of one version of a table in memory, where an exact search costs one matrix product.

The rows hold the stored float16 numbers as float32, so products in float32 propose candidates and `exact` scores them
as for any other search. A `MatrixCache` belongs to a table and its snapshots, and follows its versions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.store import exact
from looktwice.store.schema import vectors_of

if TYPE_CHECKING:
    from looktwice.types import Candidate, FloatArray

MOST_BYTES = 2**28
"""Largest matrix, with its ids: 119,000 items of 512 numbers."""

ID_BYTES = 200
"""What an id takes in memory, about: its text, its row and its entry in the look-up."""

EAGER_ROWS = 20_000
"""Up to so many rows, the first search of a version reads the matrix: that costs no more than a search on disk. Above,
the second one does: a command with one query, or a table written to between searches, reads it in vain."""

MOST_VERSIONS = 4
_BATCH = 8192
_SCORES = 2**24  # scores of several queries at once, at most: 64 MB


def size_of(rows: int, dim: int) -> int:
    """Return the bytes of a matrix, about."""
    return rows * (4 * dim + ID_BYTES)


class VectorMatrix:
    """The ids, row ids and vectors of one version. Threads may share it."""

    def __init__(self, ids: Any, row_ids: Any, rows: FloatArray) -> None:
        self.ids, self.row_ids, self.rows = ids, row_ids, rows
        self._scale = 1 / np.sqrt(np.einsum("nd,nd->n", rows, rows))

    @property
    def size(self) -> int:
        """Return its bytes, about."""
        return size_of(*self.rows.shape)

    @classmethod
    def read(cls, table: Any, dim: int) -> VectorMatrix:
        """Read all rows of a LanceDB handle."""
        import pyarrow as pa

        rows = np.empty((table.count_rows(), dim), np.float32)
        ids, numbers, end = [], [np.empty(0, np.uint64)], 0
        for batch in table.search().select(["id", "vector"]).with_row_id(True).to_batches(_BATCH):
            start, end = end, end + len(batch)
            if end > len(rows):  # another thread has added rows since they were counted: see `MatrixCache.get`
                break
            rows[start:end] = vectors_of(batch, dim)
            ids.append(batch["id"])
            numbers.append(batch["_rowid"].to_numpy(zero_copy_only=False))
        return cls(pa.chunked_array(ids, pa.string()).combine_chunks(), np.concatenate(numbers), rows[:end])

    def search(self, units: exact.Vectors, k: int, row_ids: Any = None) -> list[list[Candidate]]:
        """Return the k nearest rows of each query [q, d]; with `row_ids`, only among these."""
        chosen = None if row_ids is None else self._places_of(row_ids)
        found = []
        for start, scores in self._scored(units, chosen):
            for number, row in enumerate(scores, start):
                places = exact.proposed(row, k)
                places = places if chosen is None else chosen[places]
                own = exact.cosines(self.rows[places], units[number])
                found.append(exact.ranked(self.ids.take(places).to_pylist(), own, k))
        return found

    def row_ids_of(self, ids: Sequence[str]) -> list[int]:
        """Return the row ids of those of `ids` that exist."""
        places = (self._place.get(id_) for id_ in ids)
        return [int(self.row_ids[place]) for place in places if place is not None]

    def _scored(self, units: exact.Vectors, chosen: Any) -> Iterator[tuple[int, exact.Scores]]:
        """Yield the number of the first query of a part, and the scores [part, n] of its queries."""
        few = chosen is not None and 4 * len(chosen) < len(self.rows)  # copying some rows is cheaper than using all
        rows, scale = (self.rows[chosen], self._scale[chosen]) if few else (self.rows, self._scale)
        step = max(1, _SCORES // max(1, len(rows)))
        for start in range(0, len(units), step):
            part = units[start : start + step].astype(np.float32)
            scores = (part @ rows.T if len(part) > 1 else (rows @ part[0])[None]) * scale
            yield start, scores if few or chosen is None else scores[:, chosen]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {id_: place for place, id_ in enumerate(self.ids.to_pylist())}

    @cached_property
    def _order(self) -> Any:
        return np.argsort(self.row_ids)

    def _places_of(self, row_ids: Any) -> Any:
        """Return the places of row ids; ids of another version are passed over."""
        known = self.row_ids[self._order]
        at = np.searchsorted(known, row_ids)
        there = at < len(known)
        there[there] = known[at[there]] == row_ids[there]
        return np.sort(self._order[at[there]])


class MatrixCache:
    """The matrices of the last versions that were searched: as many as fit together, and at least one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: OrderedDict[int, VectorMatrix | None] = OrderedDict()
        self._asked = (-1, 0)  # the last version that was asked for, and for how many queries

    def known(self, version: int) -> VectorMatrix | None:
        """Return the matrix of a version if it is in memory."""
        with self._lock:
            return self._made.get(version)

    def get(self, table: Any, version: int, dim: int, queries: int = 1) -> VectorMatrix | None:
        """Return the matrix of the version that a LanceDB handle reads, read now if that pays for so many queries.

        None if it would be too large, or if another thread writes through the handle meanwhile.
        """
        with self._lock:  # the first search reads it, the others wait for it
            if version not in self._made:
                rows = table.count_rows()
                self._asked = version, queries + (self._asked[1] if self._asked[0] == version else 0)
                if rows > EAGER_ROWS and self._asked[1] < 2:
                    return None
                fits = size_of(rows, dim) <= MOST_BYTES
                matrix = VectorMatrix.read(table, dim) if fits else None
                if table.version != version:
                    return None
                self._made[version] = matrix
                self._forget()
            self._made.move_to_end(version)
            return self._made[version]

    def _forget(self) -> None:
        """Keep several versions only while they fit together."""
        while len(self._made) > 1 and sum(made.size for made in self._made.values() if made) > MOST_BYTES:
            self._made.popitem(last=False)
        while len(self._made) > MOST_VERSIONS:
            self._made.popitem(last=False)
