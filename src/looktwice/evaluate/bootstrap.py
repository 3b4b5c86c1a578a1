"""Compute confidence intervals of a mean over queries. This module knows numbers, no ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from looktwice.errors import UsageError

_CHUNK = 2_000_000  # drawn indices held at once: 16 MB


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def interval(
    values: Iterable[float], *, level: float = 0.95, resamples: int = 10_000, seed: int | None = 0
) -> Interval:
    """Return the mean of per-query values with its percentile bootstrap interval (Efron 1979; Sakai, SIGIR 2006).

    Queries are drawn with replacement. The same seed and number of queries draw the same resamples, so intervals of
    several measures are comparable. A single query gives an interval of zero width, which is meaningless. Raises
    UsageError for no values, NaN, or a level outside (0, 1).
    """
    x = np.fromiter(values, np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise UsageError(
            "A confidence interval needs finite values of at least one query; leave out queries without a value."
        )
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(f"The level must lie between 0 and 1 and resamples above 0, not {level:g} and {resamples}.")
    mean = float(x.mean())
    if x.size == 1:  # scipy cannot resample a single value
        return Interval(mean, mean, mean)
    from scipy.stats import bootstrap

    found = bootstrap(
        (x,),
        np.mean,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        batch=batch_of(x.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def difference(
    after: Mapping[str, float],
    before: Mapping[str, float],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int | None = 0,
) -> Interval:
    """Return the mean of `after − before` per query with its paired bootstrap interval.

    Pairing removes the difficulty of each query: an interval without 0 shows that the two systems differ on such
    queries. Raises UsageError unless both hold the same queries.
    """
    if after.keys() != before.keys():
        odd = min(after.keys() ^ before.keys())
        raise UsageError(f"Query {odd!r} has a value on one side only; compare results of the same queries.")
    gains = (after[query] - before[query] for query in sorted(after))
    return interval(gains, level=level, resamples=resamples, seed=seed)


def batch_of(queries: int) -> int:
    """Return how many resamples of `queries` values to draw at once."""
    return max(1, _CHUNK // queries)
