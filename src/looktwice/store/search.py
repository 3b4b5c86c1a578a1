"""Search nearest neighbours by cosine: exactly, or through the 1-bit index with refinement.

LanceDB proposes candidates. Their scores are computed again from the stored vectors in float64 and rounded to seven
decimals, so that equal vectors have equal scores and a score depends neither on the path nor on the other queries.
Order: score descending, then id ascending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from looktwice.errors import UsageError
from looktwice.store.conditions import Where
from looktwice.store.lance import batched, filtering, is_in, plain_errors
from looktwice.store.schema import Row, arrow_to_rows, stored_dim, vectors_of
from looktwice.types import Candidate

SLACK = 32
"""Rows requested beyond k, so that ties and LanceDB's own rounding at the cut are decided here."""

ROUNDING = 1e-4
"""Largest error of LanceDB's distance of float16 vectors; the largest one measured was 2.4e-5 (d = 512)."""

STREAM_FROM = 8
"""From this many queries on, one pass over all vectors beats one exact search per query."""

_BLOCK = 8192
_CHUNK = 2000

Vectors = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Space:
    """A LanceDB handle with the settings of a search: true dimension, filter columns, settings of the index."""

    table: Any
    place: object
    dim: int
    columns: Mapping[str, type]
    index: Mapping[str, Any] | None

    def search(self, queries: Any, k: int, where: Where | None = None) -> list[list[Candidate]]:
        """Return the k nearest rows of each query [q, d] among those that match `where`."""
        units = _units(queries, self.dim)
        if k <= 0:
            raise UsageError(f"k must be at least 1, not {k}.")
        with plain_errors(self.place, "searching"), filtering(where, self.columns) as sql:
            if self.index is None and len(units) >= STREAM_FROM:
                return self.stream(units, k, sql)
            return [self._one(unit, k, sql) for unit in units]

    def _one(self, unit: Any, k: int, where: str | None) -> list[Candidate]:
        """Request more rows until the k-th is clearly better than any row that LanceDB may have left out."""
        wanted = k + SLACK
        while True:
            found = self._propose(unit, wanted, where)
            best = _ranked(found["id"].to_pylist(), _cosine(vectors_of(found, self.dim), unit), k)
            if len(found) < wanted or 1 - found["_distance"][-1].as_py() < best[-1].coarse - ROUNDING:
                return best
            wanted *= 4

    def _propose(self, unit: Any, wanted: int, where: str | None) -> Any:
        query = np.pad(unit, (0, stored_dim(self.dim) - self.dim)).astype(np.float32)
        builder = self.table.search(query, vector_column_name="vector").distance_type("cosine").limit(wanted)
        if self.index is None:  # an interrupted build may have left an unmeasured index
            builder = builder.bypass_vector_index()
        else:
            # With both bounds equal a selective filter would return too few rows; 0 removes the upper bound.
            builder = builder.minimum_nprobes(self.index["nprobes"]).maximum_nprobes(0)
            builder = builder.refine_factor(self.index["refine"])
        if where is not None:
            builder = builder.where(where, prefilter=True)
        return builder.select(["id", "vector", "_distance"]).to_arrow()

    def stream(self, units: Vectors, k: int, where: str | None = None) -> list[list[Candidate]]:
        """Search many queries exactly in one pass over the vectors, with memory for one block at a time."""
        ids: list[np.ndarray[Any, Any]] = [np.empty(0, object) for _ in units]
        scores = [np.empty(0, np.float32) for _ in units]
        scan = self.table.search().select(["id", "vector"])
        for batch in (scan if where is None else scan.where(where)).to_batches(_BLOCK):
            names = batch["id"].to_numpy(zero_copy_only=False)
            block = _cosine(vectors_of(batch, self.dim), units.T)
            for number, column in enumerate(np.ascontiguousarray(block.T)):
                enough = scores[number][-1] if len(scores[number]) == k else -np.inf
                if (better := np.flatnonzero(column >= enough)).size:
                    both = np.append(ids[number], names[better]), np.append(scores[number], column[better])
                    ids[number], scores[number] = _best(*both, k)
        return [_candidates(*pair) for pair in zip(ids, scores, strict=True)]


def _units(queries: Any, dim: int) -> Vectors:
    units: Vectors = np.asarray(queries, np.float64)
    if units.ndim != 2 or (len(units) and units.shape[1] != dim):
        raise UsageError(
            f"The query vectors have shape {units.shape}; pass vectors of {dim} numbers, as this table has."
        )
    norms = np.linalg.norm(units, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or np.any(norms == 0):
        raise UsageError("A query vector is zero or not finite, so it has no nearest items; encode another query.")
    units = units / norms
    return units


def _cosine(rows: Any, unit: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    exact = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    scores = (exact @ unit) / (norms if unit.ndim == 1 else norms[:, None])
    return np.asarray(np.round(scores, 7) + 0.0, np.float32)  # + 0.0 makes -0.0 print as what it is


def _best(ids: Any, scores: Any, k: int) -> tuple[Any, Any]:
    if len(scores) > k:  # keep all ties with the k-th, or they would be cut before they are ordered
        keep = scores >= np.partition(scores, -k)[-k]
        ids, scores = ids[keep], scores[keep]
    order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))[:k]
    return ids[order], scores[order]


def _candidates(ids: Any, scores: Any) -> list[Candidate]:
    return [Candidate(id_, float(score)) for id_, score in zip(ids, scores, strict=True)]


def _ranked(ids: Sequence[str], scores: Any, k: int) -> list[Candidate]:
    return _candidates(*_best(np.array(ids, dtype=object), scores, k))


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
