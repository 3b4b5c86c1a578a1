"""Fit and apply the curves of a calibration: from p to P(relevant), by scikit-learn. Numbers and labels only."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from looktwice.rank.stack import logit


def fit_curve(method: str, p: Sequence[float], relevant: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """Return the curve of a method: (a, b), or steps (least p, P(relevant))."""
    return (logistic([logit(x) for x in p], relevant),) if method == "platt" else isotonic(p, relevant)


def apply_curve(method: str, curve: Sequence[tuple[float, float]], p: float) -> float:
    """Return P(relevant) of a pair with this p."""
    if method == "platt":
        return sigmoid(curve[0][0] * logit(p) + curve[0][1])
    at = bisect.bisect_right([x for x, _ in curve], p)
    return curve[max(0, at - 1)][1]


def isotonic(p: Sequence[float], relevant: Sequence[bool]) -> tuple[tuple[float, float], ...]:
    """Return steps (least p, P(relevant)) of the non-decreasing function nearest to the labels in squares."""
    import numpy as np
    from sklearn.isotonic import IsotonicRegression

    # fit on ranks, as scikit-learn merges close p
    values, place = np.unique(np.asarray(p, np.float64), return_inverse=True)
    shares = IsotonicRegression().fit(place, np.asarray(relevant, np.float64)).predict(np.arange(len(values)))
    first = np.diff(shares, prepend=-1.0) > 1e-12
    return tuple(zip(values[first].tolist(), shares[first].tolist(), strict=True))


def logistic(x: Sequence[float], relevant: Sequence[bool]) -> tuple[float, float]:
    """Return (a, b) of σ(a·x + b), fitted to Platt's smoothed targets on standardised x.

    Each pair counts as a hit with its target as weight and as a miss with the rest. A ridge of 1e-6 keeps a constant x
    at slope 0.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    values, labels = np.asarray(x, np.float64), np.asarray(relevant, bool)
    middle, spread = float(values.mean()), float(values.std())
    if spread <= 1e-9 * max(1e-9, abs(middle)):
        spread = 1.0  # constant x has no slope to find
    rows = np.stack([(values - middle) / spread, np.ones(len(values))], axis=1)
    hits, misses = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (hits + 1) / (hits + 2), 1 / (misses + 2))
    model = LogisticRegression(C=1e6, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=200)
    answers = np.repeat([True, False], len(values))
    model.fit(np.concatenate([rows, rows]), answers, np.concatenate([target, 1 - target]))
    slope, level = map(float, model.coef_[0])
    return slope / spread, level - slope / spread * middle


def sigmoid(x: float) -> float:
    """Return 1 / (1 + e^−x)."""
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, x))))
