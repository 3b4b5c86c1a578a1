"""Compare two runs on the same queries: difference, interval, p-value, queries that gained and lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from looktwice.errors import UsageError
from looktwice.evaluate.bootstrap import Interval, batch_of, difference


@dataclass(frozen=True, slots=True)
class Comparison:
    """The change `after − before` of one measure, per query and on average.

    `p` is the two-sided p-value of the paired randomisation test. `hurt` lists the queries that lost, worst first, each
    with its change; `helped` lists those that gained, best first. `same` counts the others.
    """

    difference: Interval
    p: float
    helped: tuple[tuple[str, float], ...]
    hurt: tuple[tuple[str, float], ...]
    same: int


def compare(
    after: Mapping[str, float], before: Mapping[str, float], *, level: float = 0.95, seed: int | None = 0
) -> Comparison:
    """Compare per-query values of two systems. Raises UsageError unless both hold the same queries."""
    mean = difference(after, before, level=level, seed=seed)
    gains = sorted(((query, after[query] - before[query]) for query in after), key=lambda row: (row[1], row[0]))
    hurt = tuple(row for row in gains if row[1] < 0)
    helped = tuple(row for row in reversed(gains) if row[1] > 0)
    return Comparison(
        mean, randomisation([gain for _, gain in gains], seed=seed), helped, hurt, len(gains) - len(hurt) - len(helped)
    )


def randomisation(gains: list[float], *, draws: int = 10_000, seed: int | None = 0) -> float:
    """Return the two-sided p-value of the paired randomisation test: how often random signs give as large a mean.

    Fisher's test as used for retrieval (Smucker, Allan and Carterette, CIKM 2007), by sampling, with the observed
    assignment counted once, so that p is never 0. Raises UsageError for no values.

    >>> randomisation([0.0, 0.0])
    1.0
    """
    x = np.asarray(gains, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise UsageError(
            "A significance test needs finite values of at least one query; leave out queries without a value."
        )
    from scipy.stats import monte_carlo_test

    rng = np.random.default_rng(seed)
    found = monte_carlo_test(
        x,
        lambda size: x * (rng.integers(2, size=size, dtype=np.int8) * 2 - 1),
        lambda gained, axis: np.abs(gained.sum(axis=axis)).round(12),  # equal sums may differ in their last digit
        vectorized=True,
        n_resamples=draws,
        batch=batch_of(x.size),
        alternative="greater",
    )
    return float(found.pvalue)
