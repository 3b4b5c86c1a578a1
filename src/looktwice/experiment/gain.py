"""Measure what a choice gains on queries that had no part in it: folds over groups of queries, and an interval.

Queries that share a relevant item are one group. A group stays in one fold, and counts as one when the interval is
drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from looktwice.errors import UsageError
from looktwice.evaluate.bootstrap import Interval, difference

FOLDS = 5


@dataclass(frozen=True)
class Gain:
    """Means over groups of queries, without and with what was chosen, and the interval of their difference."""

    before: float
    after: float
    interval: Interval
    queries: int
    groups: int

    @classmethod
    def of(cls, before: Mapping[str, float], after: Mapping[str, float], groups: Mapping[str, str]) -> Gain:
        """Compare the measures of the same queries; `groups` maps each to its group."""
        old, new = _by_group(before, groups), _by_group(after, groups)
        was, now = (float(np.mean([*values.values()])) for values in (old, new))
        return cls(was, now, difference(new, old), len(before), len(old))

    @property
    def claimed(self) -> bool:
        """Return whether the interval lies above 0."""
        return self.interval.low > 0

    def record(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        means = {"before": self.before, "after": self.after, "gain": self.interval._asdict(), "claimed": self.claimed}
        return {**means, "queries": self.queries, "groups": self.groups}


def demand_groups(groups: Mapping[str, str], what: str) -> None:
    """Raise UsageError for fewer groups of queries than folds; `what` needs them."""
    if (apart := len(set(groups.values()))) < FOLDS:
        raise UsageError(
            f"{what} needs {FOLDS} groups of queries, but the labels give {apart} groups (queries that share a "
            "relevant item are one group); label more queries."
        )


def folds(groups: Mapping[str, str], number: int = FOLDS) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (queries outside, queries inside) of each fold; groups stay whole."""
    place = {group: i % number for i, group in enumerate(sorted(set(groups.values())))}
    for fold in range(number):
        held = [query for query, group in groups.items() if place[group] == fold]
        yield [query for query in groups if query not in set(held)], held


def _by_group(values: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, float]:
    """Return the mean over the queries of each group."""
    members: dict[str, list[float]] = {}
    for query, value in values.items():
        members.setdefault(groups[query], []).append(value)
    return {group: float(np.mean(own)) for group, own in members.items()}
