"""Confidence intervals: seeded, paired, and with the coverage that they claim."""

from __future__ import annotations

import numpy as np
import pytest

from looktwice.errors import UsageError
from looktwice.evaluate import difference, interval, measure
from looktwice.evaluate.compare import randomisation

VALUES = np.random.default_rng(1).uniform(size=60)


def test_the_seed_decides_and_chunks_do_not_show(monkeypatch):
    first = interval(VALUES)
    assert first == interval(VALUES) != interval(VALUES, seed=1)
    monkeypatch.setattr("looktwice.evaluate.bootstrap._CHUNK", 60 * 7)
    assert interval(VALUES) == first


@pytest.mark.parametrize("n", [2, 7, 60, 333])
def test_bounds_are_those_of_a_bootstrap_written_out(n):
    """Draw indices, average, take percentiles: what looktwice did itself before scipy did it."""
    x = np.random.default_rng(n).uniform(size=n)
    drawn = np.random.default_rng(0).integers(n, size=(10_000, n))
    low, high = np.quantile(x[drawn].mean(axis=1), [0.025, 0.975])
    found = interval(x)
    assert found.mean == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("gains", [VALUES - 0.4, [0.1, 0.2, -0.3], [0.1] * 5 + [-0.1] * 3, [0.0, 0.0], [0.3]])
def test_p_is_that_of_a_randomisation_test_written_out(gains):
    """Draw signs, add up, count: what looktwice did itself before scipy did it."""
    x = np.asarray(gains)
    signs = np.random.default_rng(0).integers(2, size=(10_000, len(x)), dtype=np.int8) * 2 - 1
    extreme = int((np.abs(signs @ x) >= abs(x.sum()) - 1e-12).sum())
    assert randomisation(list(gains)) == pytest.approx((extreme + 1) / 10_001, abs=1e-12)


def test_the_true_mean_lies_inside_about_as_often_as_claimed():
    """200 samples of 50: a 90 % interval that holds missed the mean 12 to 30 times out of 200 (false alarm < 1 %)."""
    rng = np.random.default_rng(5)
    drawn = (interval(rng.uniform(size=50), level=0.9, resamples=500) for _ in range(200))
    misses = sum(not found.low <= 0.5 <= found.high for found in drawn)
    assert 10 <= misses <= 36


def test_pairing_takes_out_how_hard_a_query_is():
    before = {f"q{i}": float(v) * 0.8 for i, v in enumerate(VALUES)}
    after = {query: value + 0.05 for query, value in before.items()}
    gain = difference(after, before)
    assert gain.mean == pytest.approx(0.05) and gain.low == pytest.approx(0.05) == gain.high
    unpaired = interval(after.values())
    assert unpaired.high - unpaired.low > 0.05
    assert difference(before, after).mean == pytest.approx(-0.05)


def test_order_of_the_queries_does_not_matter():
    before = {f"q{i}": float(v) for i, v in enumerate(VALUES)}
    after = {query: value**2 for query, value in before.items()}
    assert difference(dict(reversed(after.items())), before) == difference(after, before)


def test_a_result_gives_its_interval():
    run = {"a": [("x", 1.0)], "b": [("y", 1.0)]}
    found = measure(run, {"a": {"x": 1}, "b": {"x": 1}}, ["success@1"])
    assert found.interval("success@1") == interval([1.0, 0.0]) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_values_that_have_no_mean_are_refused(values):
    with pytest.raises(UsageError, match="at least one query"):
        interval(values)


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 1}, {"level": float("nan")}, {"resamples": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UsageError, match="level must lie"):
        interval(VALUES, **options)


def test_different_queries_are_not_compared():
    with pytest.raises(UsageError, match="'b' has a value on one side only"):
        difference({"a": 1.0, "b": 1.0}, {"a": 0.5})
