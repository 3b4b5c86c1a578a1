"""The first look: encode a batch of queries, search the table for all of them at once, fold near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from looktwice.errors import QueryError
from looktwice.search.distinct import FoldedShortlist, distinct_shortlist
from looktwice.search.examples import StoredItem, examples_of, left_out, mixed
from looktwice.search.hubness import Hubness
from looktwice.search.run_record import RunStats
from looktwice.sources.queries import read_alike
from looktwice.sources.reading import Reading
from looktwice.store import TableReader, Where
from looktwice.types import Candidate, Encoder, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray


@dataclass(frozen=True)
class ShortlistResult:
    """One query with its vector, its shortlist, and its share of the seconds.

    `folded`: the ids behind each distinct candidate. A query that cannot be used is a QueryError; its vector and its
    shortlist are empty.
    """

    query: Item | QueryError
    vector: FloatArray
    shortlist: list[Candidate]
    stats: RunStats
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FirstLook:
    """A search of `table` for the best `depth` items that pass `where`.

    With `least`, items with that cosine to a better one are folded into it. The encoder is the one of queries.
    `hubness` may take a bank's mean scores from those of text queries.
    """

    table: TableReader
    encoder: Encoder
    depth: int
    where: Where | None = None
    least: float | None = None
    hubness: Hubness = field(default_factory=Hubness)

    def at(self, batch: Sequence[Item | QueryError]) -> Iterator[ShortlistResult]:
        """Yield each query of a batch with its shortlist."""
        spent = RunStats()
        with spent.time("encode"):
            vectors = [self.vector(query) for query in batch]
        good = [vector for vector in vectors if not isinstance(vector, QueryError)]
        drop = [set() if isinstance(query, QueryError) else left_out(query) for query in batch]
        deep = self.depth + max(map(len, drop))
        with spent.time("search"):
            found = iter(self.table.search_many(good, deep, self.where) if good else ())
            looked = [
                ([], {}) if isinstance(vector, QueryError) else self._kept(next(found), vector, own)
                for vector, own in zip(vectors, drop, strict=True)
            ]
        for query, vector, (shortlist, folded) in zip(batch, vectors, looked, strict=True):
            stats = RunStats(queries=1, seconds=spent.share(len(batch)))
            if isinstance(vector, QueryError):
                yield ShortlistResult(vector, np.empty(0, np.float32), [], stats)
                continue
            if self.hubness.rule != "off":
                shortlist = _scaled(shortlist, float(np.linalg.norm(vector)))
            yield ShortlistResult(query, vector, shortlist, stats, folded)

    def _kept(self, found: list[Candidate], vector: FloatArray, own: set[str]) -> FoldedShortlist:
        """Return the best `depth` candidates without the query's `own` items, distinct ones if asked."""

        def without_own(candidates: list[Candidate]) -> list[Candidate]:
            return [candidate for candidate in candidates if candidate.id not in own]

        if self.least is None:
            return without_own(found)[: self.depth], {}

        def deeper(k: int) -> list[Candidate]:
            return without_own(self.table.search(vector, k, self.where))

        return distinct_shortlist(self.table, without_own(found), self.depth, self.least, deeper)

    def vector(self, query: Item | QueryError) -> FloatArray | QueryError:
        """Encode one query on its own, as in half precision a vector changes with its batch; a QueryError stays one."""
        if isinstance(query, QueryError):
            return query
        reading = Reading(self.table.manifest.reading, self.encoder.info.side)
        vector = mixed(query, [self._encoded(item, reading) for item in examples_of(query)])
        if np.isfinite(vector).all():
            return self.hubness.centred(query, vector, self.table, self.encoder)
        why = "The encoder returned a zero or non-finite vector for query"
        return QueryError(f"{why} {query.id!r}; try another image or text.", query.id)

    def _encoded(self, item: Item, reading: Reading) -> FloatArray:
        if isinstance(item, StoredItem) and item.vector is not None:
            return item.vector
        vector: FloatArray = self.encoder.encode([read_alike(item, reading)])[0]
        return vector


def _scaled(shortlist: list[Candidate], factor: float) -> list[Candidate]:
    """Return candidates with scores in place of cosines to a query of length `factor`; a unit query changes nothing."""
    return [Candidate(c.id, c.coarse * factor) for c in shortlist] if abs(factor - 1) > 1e-5 else shortlist
