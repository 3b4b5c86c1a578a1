"""Adapt the vectors of a first look linearly, from labelled queries, and measure that on queries that taught nothing.

C is the mean of d·dᵀ over d = query − relevant item, both of unit length: in which directions vectors differ that show
the same thing. Queries and items are multiplied by (C + s·I)^−½, where s is three times the mean variance: these
directions then count less. This is learnt whitening (Radenović, Tolias and Chum, TPAMI 2019, arXiv 1711.02512) without
its projection, shrunk so that ten objects are enough. Nothing is chosen, so one round of cross-validation is honest.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from looktwice.encode.mixing import unit
from looktwice.errors import UsageError
from looktwice.evaluate.groups import measure_group
from looktwice.experiment.gain import Gain, demand_groups, folds
from looktwice.experiment.labelled import groups_of

if TYPE_CHECKING:
    from looktwice.types import FloatArray

SHRINK = 3.0


@dataclass(frozen=True)
class AskedVectors:
    """One labelled query: its vector [d], and the vectors [n, d] of `ids`.

    The first `best` ids are what the first look found; others have a label. These teach, but are not ranked: relevant
    items alone would meet no rivals. `judged` says that only items with a label are known to be right or wrong; then
    these are ranked, and no others.
    """

    query: str
    vector: FloatArray
    ids: Sequence[str]
    best: int
    items: FloatArray
    grades: dict[str, int]
    judged: bool

    @property
    def differences(self) -> FloatArray:
        """Return query − item of each relevant item."""
        rows = [i for i, name in enumerate(self.ids) if self.grades.get(name, 0) > 0]
        apart: FloatArray = self.vector - self.items[rows]
        return apart

    def value(self, weight: FloatArray | None, measure: str) -> float:
        """Return the measure of the first look, with or without an adaptation."""
        query, items = self.vector[None], self.items
        if weight is not None:
            query, items = unit(query @ weight.T), unit(items @ weight.T)
        scored = list(zip(self.ids, (items @ query[0]).tolist(), strict=True))
        ranked = [row for row in scored if row[0] in self.grades] if self.judged else scored[: self.best]
        run = sorted(ranked, key=lambda row: (-row[1], row[0]))
        found = measure_group({self.query: run}, {self.query: self.grades}, [measure])
        return found.per_query[measure][self.query]


@dataclass(frozen=True)
class Adaptation:
    """An adaptation learnt from all queries, and what it gains on queries that taught nothing."""

    weight: FloatArray
    gain: Gain

    @property
    def file(self) -> bytes:
        """Return the adaptation as a .npz file, for an encoder's `+linear:FILE`."""
        packed = io.BytesIO()
        np.savez(packed, weight=self.weight)
        return packed.getvalue()


def adapt(asked: Sequence[AskedVectors], measure: str) -> Adaptation:
    """Learn from all queries with a relevant item, and measure by cross-validation over groups of them.

    Raises UsageError for fewer than five groups of queries that share no relevant item.
    """
    known = {one.query: one for one in asked if len(one.differences)}
    groups = groups_of({name: one.grades for name, one in known.items()})
    demand_groups(groups, "Adapting")
    after: dict[str, float] = {}
    for train, held in folds(groups):
        weight = learnt([known[name] for name in train])
        after |= {name: known[name].value(weight, measure) for name in held}
    before = {name: one.value(None, measure) for name, one in known.items()}
    return Adaptation(learnt([*known.values()]), Gain.of(before, after, groups))


def learnt(asked: Sequence[AskedVectors]) -> FloatArray:
    """Return (C + s·I)^−½ of these queries, with the mean variance as unit."""
    apart = np.concatenate([one.differences for one in asked]).astype(np.float64)
    spread, axes = np.linalg.eigh(apart.T @ apart / len(apart))
    if (level := float(spread.mean())) <= 0:
        raise UsageError("Every relevant item has its query's own vector, so nothing can be learnt; use other queries.")
    scale = (spread / level + SHRINK) ** -0.5
    made: FloatArray = ((axes * scale) @ axes.T).astype(np.float32)
    return made
