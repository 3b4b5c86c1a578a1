"""Split a benchmark's labels by difficulty, scale and clutter, and remove junk from lists before measuring.

A group is a set of labels of its own. Labels below 0 are junk: `without_junk` removes their documents from every list
before the cut at k, so that they count neither as found nor as missed. The mean of a group leaves out queries without
relevant documents in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from looktwice.evaluate.measures import Measure, Result, measure
from looktwice.evaluate.trec import Qrels, Run

ILIAS_SCALE = (0.0, 0.06880213760855043, 0.13526567164179104, 0.2729876723163842)
"""Lower edges of ILIAS's four scale groups: size of the object's box as a share of the image."""
ILIAS_CLUTTER = (0.0, 18.0, 33.0, 53.0)
"""Lower edges of ILIAS's four clutter groups."""

JUNK, HARD, EASY = -1, 1, 2
"""Labels of ROxford and RParis, as `revisited` expects them."""


def without_junk(run: Run, qrels: Qrels) -> Run:
    """Return the run without documents whose label is below 0."""
    return {
        query: [row for row in rows if qrels.get(query, {}).get(row[0], 0) >= 0] if query in qrels else rows
        for query, rows in run.items()
    }


def measure_group(run: Run, qrels: Qrels, names: Iterable[str | Measure]) -> Result:
    """Measure a run against labels with junk: apply `without_junk`, then `measure`."""
    return measure(without_junk(run, qrels), qrels, names)


def by_value(qrels: Qrels, values: Mapping[str, float], edges: Sequence[float], axis: str) -> dict[str, Qrels]:
    """Split relevant documents by a value of each document; see `by_pair_value`."""
    return by_pair_value(qrels, dict.fromkeys(qrels, values), edges, axis)


def by_pair_value(
    qrels: Qrels, values: Mapping[str, Mapping[str, float]], edges: Sequence[float], axis: str
) -> dict[str, Qrels]:
    """Split relevant documents by a value of query and document into intervals [edge, next edge), the last one open.

    Inside one interval the relevant documents of all others are junk (ILIAS, CVPR 2025, evaluation script). Names have
    the form `axis [low, high)`. Relevant documents without a value are junk in every interval. Intervals without
    relevant documents are left out.
    """
    bounds = [*pairwise(edges), (edges[-1], float("inf"))]
    groups = {f"{axis} [{low:.4g}, {high:.4g})": _only(qrels, values, low, high) for low, high in bounds}
    return {name: labels for name, labels in groups.items() if has_relevant(labels)}


def revisited(qrels: Qrels) -> dict[str, Qrels]:
    """Return the Easy, Medium and Hard protocols of ROxford and RParis from labels EASY, HARD and JUNK.

    Easy: hard ones are junk; Medium: easy and hard are relevant; Hard: easy ones are junk (CVPR 2018, section 3.4).
    """
    return {
        "Easy": _relabelled(qrels, {EASY: 1, HARD: JUNK}),
        "Medium": _relabelled(qrels, {EASY: 1, HARD: 1}),
        "Hard": _relabelled(qrels, {EASY: JUNK, HARD: 1}),
    }


def by_query(qrels: Qrels, group_of: Mapping[str, str]) -> dict[str, Qrels]:
    """Split queries by a property of each query."""
    groups: dict[str, Qrels] = {}
    for query, labels in qrels.items():
        if query in group_of:
            groups.setdefault(group_of[query], {})[query] = labels
    return groups


def _only(qrels: Qrels, values: Mapping[str, Mapping[str, float]], low: float, high: float) -> Qrels:
    def kept(query: str, name: str) -> bool:
        return low <= values.get(query, {}).get(name, math.nan) < high

    return {
        query: {name: JUNK if grade > 0 and not kept(query, name) else grade for name, grade in labels.items()}
        for query, labels in qrels.items()
    }


def _relabelled(qrels: Qrels, grades: Mapping[int, int]) -> Qrels:
    return {
        query: {name: grades.get(grade, grade) for name, grade in labels.items()} for query, labels in qrels.items()
    }


def has_relevant(qrels: Qrels) -> bool:
    """Return whether any label is above 0."""
    return any(grade > 0 for labels in qrels.values() for grade in labels.values())
