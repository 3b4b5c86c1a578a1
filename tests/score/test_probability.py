"""The maths of the score, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from apple import send
from hypothesis import given, settings
from hypothesis import strategies as st

from looktwice.errors import ModelError, UsageError
from looktwice.rank import fuse
from looktwice.score.readout.probability import LabelIds, assemble, blank, checked, expected_value, read, scatter
from looktwice.types import Candidate

TWO = LabelIds(((0,), (1,)), (0.0, 1.0))


def test_two_labels_are_a_sigmoid_of_the_difference() -> None:
    scores = read(torch.tensor([[0.0, 0.0, -5.0], [1.0, 3.0, -5.0]]), TWO)
    assert scores.p == pytest.approx([0.5, 1 / (1 + math.exp(-2))], abs=1e-7)
    assert scores.argmax_id.tolist() == [0, 1]
    assert scores.status == ("ok", "ok")


def test_a_distribution_worked_out_by_hand() -> None:
    # p = 0.2 for label 0, 0.3 + 0.1 for the two spellings of label 1, 0.4 elsewhere
    scores = read(torch.tensor([[0.2, 0.3, 0.1, 0.4]]).log(), LabelIds(((0,), (1, 2)), (0.0, 1.0)))
    assert scores.p[0] == pytest.approx(0.4 / 0.6, abs=1e-6)
    assert scores.off_mass[0] == pytest.approx(0.4, abs=1e-6)
    assert scores.entropy[0] == pytest.approx(-sum(q * math.log(q) for q in (0.2, 0.3, 0.1, 0.4)), abs=1e-6)
    assert np.exp(scores.label_logits[0]) == pytest.approx([0.2, 0.4], abs=1e-6)
    assert scores.argmax_id[0] == 3


def test_values_make_ternary_and_ten_point_scales() -> None:
    ternary = LabelIds(((0,), (1,), (2,)), (0.0, 0.5, 1.0))
    assert read(torch.tensor([[0.25, 0.5, 0.25]]).log(), ternary).p[0] == pytest.approx(0.5)
    ten = LabelIds(tuple((i,) for i in range(10)), tuple(i / 9 for i in range(10)))
    assert read(torch.zeros(1, 12), ten).p[0] == pytest.approx(0.5)


def test_far_apart_logits_neither_overflow_nor_saturate_early() -> None:
    scores = read(torch.tensor([[-2000.0, 2000.0], [30000.0, 30000.5], [-30.0, 0.0]]), TWO)
    assert scores.p[0] == 1.0 and scores.p[1] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert scores.off_mass.tolist() == [0.0, 0.0, 0.0]
    assert read(torch.tensor([[0.0, -60.0]]), TWO).p[0] == pytest.approx(math.exp(-60), rel=1e-5), "not a plain zero"


def test_small_off_mass_keeps_its_digits() -> None:
    logits = torch.tensor([[0.0, 0.0, -20.0]])
    assert read(logits, TWO).off_mass[0] == pytest.approx(math.exp(-20) / (2 + math.exp(-20)), rel=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        [math.nan, 0, 0],
        [0, math.nan, 0],
        [0, 0, math.nan],
        [math.inf, 0, 0],
        [-math.inf, -math.inf, 0],
        [0, 0, math.inf],
    ],
)
def test_unusable_logits_are_failed_rows_and_do_not_touch_their_neighbours(row: list[float]) -> None:
    scores = read(torch.tensor([[0.0, 1.0, 2.0], row, [0.0, 1.0, 2.0]]), TWO)
    assert scores.status == ("ok", "failed", "ok")
    for values in (scores.p, scores.entropy, scores.off_mass, scores.label_logits[:, 0]):
        assert math.isnan(values[1]) and np.isfinite(values[[0, 2]]).all()
    assert scores.argmax_id[1] == -1


def test_one_impossible_label_is_a_score() -> None:
    scores = read(torch.tensor([[-math.inf, 0.0, 0.0]]), TWO)
    assert scores.status == ("ok",) and scores.p[0] == 1.0 and scores.entropy[0] == pytest.approx(math.log(2))


def test_half_precision_logits_are_read_in_full() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    rounded = logits.to(torch.bfloat16)
    assert read(rounded, TWO).p == pytest.approx(read(rounded.float(), TWO).p, abs=0)


def test_off_mass_and_entropy_that_nobody_knows_are_unknown_and_no_failure() -> None:
    """As a server gives that shows a few log-probabilities only."""
    logits, unknown = np.array([[0.0, 1.0], [math.nan, 1.0]]), np.full(2, math.nan)
    scores = assemble(logits, unknown, unknown, np.array([1, 1]), TWO.values)
    assert scores.status == ("ok", "failed") and scores.p[0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert np.isnan(scores.off_mass).all() and np.isnan(scores.entropy).all()
    assert checked(scores, 2, "remote").status == ("ok", "failed")
    hits = fuse([Candidate("a", 0.5), Candidate("b", 0.4)], scores, explain=True)
    assert hits[0].scored and hits[0].explain is not None and hits[0].explain["off_mass"] is None
    assert not hits[1].scored


def test_shapes_and_label_ids_are_checked() -> None:
    with pytest.raises(ModelError, match="label"):
        read(torch.zeros(2, 1), TWO)
    with pytest.raises(UsageError):
        LabelIds(((0, 1), (1,)), (0.0, 1.0))
    with pytest.raises(UsageError):
        LabelIds(((0,), ()), (0.0, 1.0))
    assert read(torch.zeros(0, 3), TWO).p.shape == (0,)


def test_scatter_restores_order_and_marks_what_was_not_scored() -> None:
    part = read(torch.tensor([[0.0, 2.0], [0.0, -2.0]]), TWO)
    whole = scatter(4, 2, [((3, 1), part)], "missing")
    assert whole.status == ("missing", "ok", "missing", "ok")
    assert whole.p[[3, 1]].tolist() == part.p.tolist() and np.isnan(whole.p[[0, 2]]).all()
    assert np.isnan(blank(2, 3, "failed").label_logits).all()


finite = st.floats(-60, 60, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=4, max_size=12), st.floats(-50, 50, width=32))
def test_against_plain_arithmetic(row: list[float], shift: float) -> None:
    labels = LabelIds(((1,), (0, 2)), (0.0, 1.0))
    scores = read(torch.tensor([row], dtype=torch.float64), labels)
    weights = [math.exp(x - max(row)) for x in row]
    total = math.fsum(weights)
    on, one = weights[0] + weights[1] + weights[2], weights[0] + weights[2]
    assert scores.p[0] == pytest.approx(one / on if on else math.nan, abs=1e-6, nan_ok=True) or on < 1e-20
    assert scores.off_mass[0] == pytest.approx(1 - on / total, abs=1e-6)
    assert 0 <= scores.entropy[0] <= math.log(len(row)) + 1e-5
    moved = read(torch.tensor([row], dtype=torch.float64) + shift, labels)
    assert moved.p[0] == pytest.approx(scores.p[0], abs=1e-6), "a common shift changes nothing"


@settings(max_examples=40, deadline=None)
@given(st.lists(finite, min_size=2, max_size=8))
def test_expected_value_lies_between_the_values_and_follows_the_logits(row: list[float]) -> None:
    values = np.linspace(0, 1, len(row)).tolist()
    assert 0 <= expected_value(np.array([row]), values)[0] <= 1
    up = expected_value(np.array([[*row[:-1], row[-1] + 1]]), values)[0]
    assert up >= expected_value(np.array([row]), values)[0] - 1e-12


def test_a_device_without_float64_gives_the_same_scores() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 4
    near, far = read(logits, TWO), read(send(logits), TWO)
    for name in ("p", "label_logits", "entropy", "off_mass"):
        np.testing.assert_allclose(getattr(far, name), getattr(near, name), rtol=2e-6, atol=1e-6)
    with pytest.raises(TypeError, match="float64"):
        send(logits).double()
    with pytest.raises(TypeError, match="cpu"):
        send(logits).numpy()
