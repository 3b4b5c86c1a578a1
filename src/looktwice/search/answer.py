"""The answer to one query of a Retriever: its shortlist, its ranking, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from looktwice.errors import QueryError
from looktwice.rank.calibration import Sample
from looktwice.search.details import Describe
from looktwice.search.run_record import RunStats, run_manifest
from looktwice.types import Candidate, Hit, Item


@dataclass(frozen=True)
class Answer:
    """The answer to one query.

    `middle` is the shortlist in the order of the middle look, with its scores; None if it did not run.
    `ranking` is the whole shortlist in its new order, with unscored candidates below; `hits` are its first k.
    `shortlist` is the same in coarse order. `manifest` holds settings, counts and seconds. `error` is set if the query
    cannot be used; the lists are then empty.
    """

    query: Item
    shortlist: list[Candidate] = field(repr=False)
    ranking: list[Hit] = field(repr=False)
    k: int
    settings: Mapping[str, Any] = field(repr=False)
    stats: RunStats = field(repr=False)
    least_p: float | None = None
    error: QueryError | None = None
    describe: Describe | None = field(default=None, repr=False, compare=False)
    middle: list[Candidate] | None = field(default=None, repr=False)

    @cached_property
    def hits(self) -> list[Hit]:
        """Return the first k of the ranking, with details of the table; with `least_p`, only those with that p."""
        first = self.ranking[: self.k]
        shown = first if self.least_p is None else [h for h in first if h.p is not None and h.p >= self.least_p]
        return shown if self.describe is None else self.describe(shown)

    def samples(self, grades: Mapping[str, int]) -> list[Sample]:
        """Return the scored pairs with labels, for `rank.calibration.fit`. Grades below 0 (junk) are skipped."""
        best = max((candidate.coarse for candidate in self.shortlist), default=0.0)
        return [
            Sample(self.query.id, hit.p, best - hit.coarse, grades.get(hit.id, 0) > 0, hit.id)
            for hit in self.ranking
            if hit.p is not None and grades.get(hit.id, 0) >= 0
        ]

    @property
    def manifest(self) -> dict[str, Any]:
        """Return models and revisions, prompt and its hash, dtype, device, k, fusion, counts, seconds, versions."""
        return run_manifest(self.settings, self.stats)
