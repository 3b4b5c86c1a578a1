"""Build the approximate index: RaBitQ codes in an inverted file, refined with the stored vectors.

Refining reads vectors from random places, which costs ten times the search of the codes. So codes have four bits per
dimension, which need little of it, while they fit into memory; benchmarks/scale.py has the figures.

Small tables need no index: exact search of EXACT_ROWS rows is faster than scoring one candidate.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from looktwice.store import partitions, segments
from looktwice.store.schema import vectors_of
from looktwice.store.search import DEPTH, VectorSearch
from looktwice.store.segments import Spread
from looktwice.types import Candidate

log = logging.getLogger(__name__)

EXACT_ROWS = 50_000
"""Tables with fewer rows are searched exactly."""

TARGET_RECALL = 0.99
FLOOR = 0.95
"""An index that finds less at its highest effort is not used: search stays exact."""

MANY_BITS, FEW_BITS, MOST_CODES = 4, 2, 2**32
"""Bits per dimension: many while the codes are no larger than that, else few."""

SAMPLE = 200
EXACT = "exact"
_REFINES = (2, 5, 10, 20, 50, 100)
_FEW_PROBES = 16
_STRANGE = 1  # per cent of the table's own rows whose nearest other row is further away than `nearest`


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index and its measured recall. `kind` is "exact" if it is not used.

    `recall` is recall@100 against exact search, for `sample` of the table's own vectors. `refine` and `nprobes` are the
    smallest settings tried that reach TARGET_RECALL, or the largest if none does. `nearest` is the cosine that a query
    must find for `nprobes` partitions to be enough.
    """

    kind: str
    rows: int
    partitions: int = 0
    nprobes: int = 0
    refine: int = 0
    recall: float = 1.0
    sample: int = 0
    nearest: float = 0.0
    seconds: float = 0.0

    def as_mapping(self) -> Mapping[str, Any]:
        return asdict(self)


def build(space: VectorSearch, rows: int, uri: str, spread: Spread | None = None) -> IndexInfo:
    """Build or replace the index of a table of `rows` rows, whose items lie at `uri`, and measure its recall.

    With `spread` others build it in segments, where that is possible.
    """
    from lancedb.index import IvfRq

    started = time.monotonic()
    shape = segments.IndexShape(max(1, math.isqrt(rows) // 2), bits_for(rows, space.dim))
    if spread is not None and segments.possible(space.table):
        segments.build(space.table, uri, shape, spread)
    elif segments.has_lance():
        partitions.build(space.table, uri, shape, space.dim)
    else:
        config = IvfRq(distance_type="cosine", num_bits=shape.bits, num_partitions=shape.partitions)
        space.table.create_index("vector", config=config, replace=True)
    info = tune(space, rows, shape.partitions)
    return IndexInfo(**{**asdict(info), "seconds": round(time.monotonic() - started, 1)})


def bits_for(rows: int, dim: int) -> int:
    """Return the bits per dimension of the codes of a table."""
    return MANY_BITS if rows * dim * MANY_BITS // 8 <= MOST_CODES else FEW_BITS


def measured_again(space: VectorSearch, rows: int, known: Mapping[str, Any]) -> IndexInfo:
    """Measure an index whose LanceDB files have changed since it was built."""
    now = asdict(tune(space, rows, known["partitions"]))
    return IndexInfo(**{**known, **{name: now[name] for name in ("nprobes", "refine", "recall", "sample", "nearest")}})


def usable(info: IndexInfo, place: object) -> IndexInfo:
    """Return a measured index, or what says that search stays exact, with a warning, if its recall is too low."""
    if info.recall >= FLOOR:
        return info
    log.warning(
        "The search index of %s found only %.1f %% of the nearest items, so search stays exact and slower; "
        "please report this.", place, 100 * info.recall,
    )  # fmt: skip
    return replace(info, kind=EXACT)


def active(index: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the settings of an index that is used for searching, None if search is exact."""
    return None if index is None or index["kind"] == EXACT else index


def build_keys(table: Any, columns: Sequence[str]) -> None:
    """Index the columns that rows are looked up by, if the table is large.

    An existing index stays while it covers nearly all rows; LanceDB scans only the others.
    """
    from lancedb.index import BTree

    if table.count_rows() < EXACT_ROWS:
        return
    known = {column for index in table.list_indices() if not behind(index) for column in index.columns}
    for column in columns:
        if column not in known:
            table.create_index(column, config=BTree(), replace=True)


def drop(table: Any) -> None:
    """Remove the approximate index, if any."""
    for index in table.list_indices():
        if index.columns == ["vector"]:
            table.drop_index(index.name)


def behind(index: Any) -> bool:
    """Return whether an index leaves out so many newer rows that scanning them is slow."""
    return bool(index.num_unindexed_rows > max(10_000, index.num_indexed_rows // 20))


def tune(space: VectorSearch, rows: int, number: int) -> IndexInfo:
    """Measure recall@100: refine deeper until it reaches TARGET_RECALL, then look into as few partitions as keep it.

    The index has `number` partitions.
    """
    queries = _sample(space, rows)
    truth = space.stream(queries, DEPTH)
    nearest = round(float(np.percentile([hits[min(1, len(hits) - 1)].coarse for hits in truth], _STRANGE)), 4)

    def measured(nprobes: int, refine: int) -> IndexInfo:
        setting = replace(space, index={"nprobes": nprobes, "refine": refine, "nearest": nearest})
        found = round(recall(truth, setting.search(queries, DEPTH)), 4)
        return IndexInfo("ivf_rq", rows, number, nprobes, refine, found, len(queries), nearest)

    for refine in _REFINES:
        info = measured(number, refine)
        if info.recall >= TARGET_RECALL:
            break
    nprobes = _FEW_PROBES
    while nprobes < number and info.recall >= TARGET_RECALL:
        if (fewer := measured(nprobes, info.refine)).recall >= TARGET_RECALL:
            return fewer
        nprobes *= 2
    return info


def recall(truth: list[list[Candidate]], found: list[list[Candidate]]) -> float:
    """Return the share of exact answers that were found. Ties at the cut count as found, since scores are compared."""
    hits = total = 0
    for right, mine in zip(truth, found, strict=True):
        floor = right[-1].coarse - 1e-6
        hits += min(sum(hit.coarse >= floor for hit in mine), len(right))
        total += len(right)
    return hits / total


def _sample(space: VectorSearch, rows: int) -> Any:
    """Return up to SAMPLE of the table's vectors as unit rows, always the same ones."""
    offsets = np.sort(np.random.default_rng(0).choice(rows, size=min(SAMPLE, rows), replace=False))
    picked = space.table.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()
    vectors = vectors_of(picked, space.dim).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
