"""The fits against the same fits written out, which looktwice used before; Platt and ECE against official evaluators.

Official are here scikit-learn's own Platt (L-BFGS over Platt's targets, without a ridge) and its reliability diagram.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import _SigmoidCalibration, calibration_curve

from looktwice.rank.calibration import BINS, ece, reliability
from looktwice.rank.curves import isotonic, logistic


def newton(x: Any, labels: Any) -> tuple[float, float]:
    """(a, b) of σ(a·x + b) towards Platt's smoothed targets, by Newton's method on standardised x, never uphill."""
    values, labels = np.asarray(x, np.float64), np.asarray(labels, bool)
    middle, spread = float(values.mean()), float(values.std())
    if spread <= 1e-9 * max(1e-9, abs(middle)):
        spread = 1.0
    rows = np.stack([(values - middle) / spread, np.ones(len(values))], axis=1)
    hits, misses = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (hits + 1) / (hits + 2), 1 / (misses + 2))
    ridge = 1e-6 * np.eye(2)

    def loss(at: Any) -> float:
        return float(np.logaddexp(0.0, rows @ at).sum() - target @ (rows @ at) + at @ ridge @ at / 2)

    weights = np.array([0.0, math.log((hits + 1) / (misses + 1))])
    for _ in range(100):
        said = 1 / (1 + np.exp(-np.clip(rows @ weights, -40, 40)))
        gradient = rows.T @ (said - target) + ridge @ weights
        step = np.linalg.solve(rows.T @ (rows * (said * (1 - said))[:, None]) + ridge, gradient)
        while np.abs(step).max() > 1e-9 and loss(weights - step) > loss(weights) - 1e-4 * float(gradient @ step):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= 1e-9:
            break
    a = float(weights[0]) / spread
    return a, float(weights[1]) - a * middle


def pooled(p: Any, labels: Any) -> tuple[tuple[float, float], ...]:
    """Steps of the isotonic fit, by pooling adjacent violators."""
    groups: dict[float, list[int]] = {}
    for x, label in zip(p, labels, strict=True):
        groups.setdefault(x, []).append(int(label))
    steps: list[list[float]] = []
    for x in sorted(groups):
        steps.append([x, sum(groups[x]), len(groups[x])])
        while len(steps) > 1 and steps[-2][1] * steps[-1][2] >= steps[-1][1] * steps[-2][2]:
            _, hits, n = steps.pop()
            steps[-1] = [steps[-1][0], steps[-1][1] + hits, steps[-1][2] + n]
    return tuple((x, hits / n) for x, hits, n in steps)


def drawn(kind: str, seed: int) -> tuple[Any, Any]:
    """Values and labels, both kinds among them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 500))
    x = {
        "smooth": rng.random(n),
        "saturated": rng.integers(0, 2, n) * 26.0 - 13.0,
        "constant": np.full(n, 0.3),
        "narrow": rng.random(n) * 1e-4,
        "ties": rng.integers(0, 5, n) / 4,
    }[kind]
    labels = rng.random(n) < np.clip(x, 0.1, 0.9)
    labels[:2] = (True, False)
    return x, labels


@pytest.mark.parametrize("kind", ["smooth", "saturated", "constant", "narrow", "ties"])
@pytest.mark.parametrize("seed", range(8))
def test_logistic_fits_agree(kind: str, seed: int) -> None:
    x, labels = drawn(kind, seed)
    assert logistic(x, labels) == pytest.approx(newton(x, labels), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_platt_agrees_with_scikit_learns(seed: int) -> None:
    x, labels = drawn("smooth", seed)
    official = _SigmoidCalibration().fit(x, labels.astype(int))
    a, b = logistic(x, labels)
    said, theirs = 1 / (1 + np.exp(-(a * x + b))), official.predict(x)
    assert said == pytest.approx(theirs, abs=2e-4)


@pytest.mark.parametrize("seed", range(8))
def test_ece_and_its_diagram_agree_with_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 0.5, 300)
    labels = rng.random(300) < p**2
    share, mean = calibration_curve(labels, p, n_bins=BINS)
    pairs = np.histogram(p, BINS, (0, 1))[0]
    points = reliability(p.tolist(), labels.tolist())
    assert [point[:2] for point in points] == [pytest.approx(both) for both in zip(mean, share, strict=True)]
    assert ece(p.tolist(), labels.tolist()) == pytest.approx(np.abs(mean - share) @ pairs[pairs > 0] / 300)


def test_a_perfect_split_gets_a_finite_slope() -> None:
    x = np.linspace(0, 1, 100)
    assert logistic(x, x > 0.5) == pytest.approx(newton(x, x > 0.5), rel=1e-6)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), st.booleans()), min_size=1))
@settings(max_examples=60, deadline=None)
def test_isotonic_fits_agree(pairs: list[tuple[float, bool]]) -> None:
    p, labels = zip(*pairs, strict=True)
    found, wanted = isotonic(p, labels), pooled(p, labels)
    assert [x for x, _ in found] == [x for x, _ in wanted]
    assert [y for _, y in found] == pytest.approx([y for _, y in wanted], abs=1e-12)
