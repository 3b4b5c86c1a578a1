"""Confidence intervals: seeded, paired, and with the coverage that they claim."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from looktwice.errors import UsageError
from looktwice.evaluate import difference, interval, measure

VALUES = np.random.default_rng(1).uniform(size=60)


def test_the_seed_decides_and_chunks_do_not_show(monkeypatch):
    first = interval(VALUES)
    assert first == interval(VALUES) != interval(VALUES, seed=1)
    monkeypatch.setattr("looktwice.evaluate.bootstrap._CHUNK", 60 * 7)
    assert interval(VALUES) == first


def test_agrees_with_scipy():
    ours = interval(VALUES, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (VALUES,), np.mean, method="percentile", n_resamples=20_000, rng=3
    ).confidence_interval
    assert ours.mean == pytest.approx(VALUES.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


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
