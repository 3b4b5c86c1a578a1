"""Groups and junk, ROxford's protocols and trapezoids, MMEB's averages, the randomisation test."""

from __future__ import annotations

import itertools
import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many import thousand

from looktwice.errors import UnknownName, UsageError
from looktwice.evaluate import mmeb
from looktwice.evaluate.compare import compare, randomisation
from looktwice.evaluate.groups import (
    EASY,
    HARD,
    ILIAS_CLUTTER,
    ILIAS_SCALE,
    JUNK,
    by_query,
    by_value,
    measure_group,
    revisited,
    without_junk,
)
from looktwice.evaluate.measures import measure, trapezoidal

DOCUMENTS = [f"d{i}" for i in range(14)]
RANKINGS = settings(max_examples=150, deadline=None)


def run_of(ranking):
    return {"q": [(name, -float(rank)) for rank, name in enumerate(ranking)]}


@st.composite
def graded(draw):
    """A ranking of some documents and a label in {junk, none, hard, easy} for each of all of them."""
    ranking = draw(st.permutations(DOCUMENTS))[: draw(st.integers(1, len(DOCUMENTS)))]
    grades = draw(st.lists(st.sampled_from([JUNK, 0, HARD, EASY]), min_size=len(DOCUMENTS), max_size=len(DOCUMENTS)))
    return ranking, dict(zip(DOCUMENTS, grades, strict=True))


def area(ranking, relevant, junk):
    """ROxford's AP as the area under a polygon: NumPy's trapezoids over recall, one step per relevant document."""
    kept = [name for name in ranking if name not in junk]
    hits = np.array([name in relevant for name in kept], dtype=float)
    found = np.cumsum(hits)
    precision = np.concatenate([[1.0], found / np.arange(1, len(kept) + 1)])
    return sum((precision[i] + precision[i + 1]) / 2 for i in range(len(kept)) if hits[i]) / len(relevant)


@RANKINGS
@given(graded())
def test_revisited_protocols_agree_with_an_independent_area(case):
    ranking, labels = case
    of = {grade: {n for n, g in labels.items() if g == grade} for grade in (JUNK, HARD, EASY)}
    protocols = {
        "Easy": (of[EASY], of[JUNK] | of[HARD]),
        "Medium": (of[EASY] | of[HARD], of[JUNK]),
        "Hard": (of[HARD], of[JUNK] | of[EASY]),
    }
    for name, qrels in revisited({"q": labels}).items():
        relevant, junk = protocols[name]
        if not relevant:
            with pytest.raises(UsageError, match="check the labels"):
                measure_group(run_of(ranking), qrels, ["trapAP"])
            continue
        found = measure_group(run_of(ranking), qrels, ["trapAP"])["trapAP"]
        assert found == pytest.approx(area(ranking, relevant, junk), abs=1e-12)


def test_trapezoids_of_a_hand_made_list():
    # relevant at ranks 1 and 3: (1 + 1)/2 and (1/2 + 2/3)/2, over 2
    assert trapezoidal([True, False, True], 2) == pytest.approx((1 + (0.5 + 2 / 3) / 2) / 2)
    assert trapezoidal([], 3) == 0
    assert trapezoidal([True] * 3, 3) == 1


def brute_force_group(ranking, labels, values, low, high, k):
    """ILIAS's rule word by word: positives outside the interval leave list and G, then the cut at k, then AP."""
    positives = {n for n, g in labels.items() if g > 0}
    inside = {n for n in positives if low <= values[n] < high}
    if not inside:
        return None
    kept = [n for n in ranking if n not in positives - inside][:k]
    ranks = [i + 1 for i, n in enumerate(kept) if n in inside]
    precisions = [len([r for r in ranks if r <= rank]) / rank for rank in ranks]
    return math.fsum(precisions) / min(k, len(inside)), len(ranks) / min(k, len(inside))


clutters = st.lists(st.sampled_from([0, 17, 18, 32.9, 33, 53, 80]), min_size=14, max_size=14)


@RANKINGS
@given(graded(), clutters, st.integers(1, 9))
def test_ilias_groups_agree_with_the_rule_spelled_out(case, numbers, k):
    ranking, grades = case
    labels = {name: int(grade > 0) for name, grade in grades.items()}
    values = dict(zip(DOCUMENTS, numbers, strict=True))
    groups = by_value({"q": labels}, values, ILIAS_CLUTTER, "clutter")
    bounds = zip(ILIAS_CLUTTER, (*ILIAS_CLUTTER[1:], math.inf), strict=True)
    expected = {f"clutter [{a:.4g}, {b:.4g})": brute_force_group(ranking, labels, values, a, b, k) for a, b in bounds}
    assert set(groups) == {name for name, value in expected.items() if value is not None}
    for name, qrels in groups.items():
        found = measure_group(run_of(ranking), qrels, [f"mAP@{k}", f"oracle@{k}"])
        assert (found[f"mAP@{k}"], found[f"oracle@{k}"]) == pytest.approx(expected[name])


def test_group_edges_are_those_of_the_benchmark_and_half_open():
    values = {"a": 0.0688, "b": 0.06880213760855043, "c": 0.9}
    groups = by_value({"q": dict.fromkeys(values, 1)}, values, ILIAS_SCALE, "scale")
    inside = {name: {n for n, g in qrels["q"].items() if g > 0} for name, qrels in groups.items()}
    assert inside == {"scale [0, 0.0688)": {"a"}, "scale [0.0688, 0.1353)": {"b"}, "scale [0.273, inf)": {"c"}}


def test_a_relevant_document_without_a_value_is_junk_everywhere():
    groups = by_value({"q": {"known": 1, "unknown": 1}}, {"known": 1.0}, (0.0, 5.0), "size")
    assert groups == {"size [0, 5)": {"q": {"known": 1, "unknown": JUNK}}}


def test_queries_without_anything_in_a_group_are_not_part_of_its_mean():
    qrels = {"has": {"a": 1}, "has not": {"b": 1}}
    group = by_value(qrels, {"a": 1.0, "b": 9.0}, (0.0, 5.0), "size")["size [0, 5)"]
    result = measure_group({"has": [("a", 1.0)], "has not": [("b", 1.0)]}, group, ["mAP@10"])
    assert result["mAP@10"] == 1 and result.without_relevant == ("has not",)


def test_junk_leaves_the_list_before_the_cut():
    run = {"q": [("junk", 3.0), ("hit", 2.0)], "unlabelled": [("x", 1.0)]}
    qrels = {"q": {"junk": JUNK, "hit": 1}}
    assert without_junk(run, qrels) == {"q": [("hit", 2.0)], "unlabelled": [("x", 1.0)]}
    assert measure_group(run, qrels, ["success@1"])["success@1"] == 1
    assert measure(run, qrels, ["success@1"])["success@1"] == 0


@RANKINGS
@given(graded(), st.integers(1, 120))
def test_gldv2_map_at_100_is_our_map(case, relevant_elsewhere):
    ranking, grades = case
    elsewhere = {f"x{i}": 1 for i in range(relevant_elsewhere)}
    labels = {name: int(grade > 0) for name, grade in grades.items()} | elsewhere
    m, hits = sum(labels.values()), [labels[name] for name in ranking]
    spelled_out = sum(sum(hits[: i + 1]) / (i + 1) * hits[i] for i in range(len(hits[:100]))) / min(m, 100)
    assert measure(run_of(ranking), {"q": labels}, ["mAP@100"])["mAP@100"] == pytest.approx(spelled_out)


@pytest.mark.slow
def test_all_of_these_on_a_thousand_rankings():
    thousand(test_revisited_protocols_agree_with_an_independent_area, graded())
    thousand(test_ilias_groups_agree_with_the_rule_spelled_out, graded(), clutters, st.integers(1, 9))
    thousand(test_gldv2_map_at_100_is_our_map, graded(), st.integers(1, 120))


def test_queries_by_property():
    assert by_query({"a": {"x": 1}, "b": {"y": 1}, "c": {}}, {"a": "words", "b": "words"}) == {
        "words": {"a": {"x": 1}, "b": {"y": 1}}
    }


def test_mmeb_has_36_sets_in_the_published_proportions():
    assert {group: len(names) for group, names in mmeb.GROUPS.items()} == {
        "Classification": 10,
        "VQA": 10,
        "Retrieval": 12,
        "Grounding": 4,
    }
    assert len(set(mmeb.NAMES)) == 36 and len(mmeb.OUT_OF_DISTRIBUTION) == 16
    assert set(mmeb.NAMES) >= mmeb.OUT_OF_DISTRIBUTION


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_mmeb_averages(seed):
    rng = random.Random(seed)
    scores = {name: rng.random() for name in mmeb.NAMES}
    found = mmeb.averages(scores)
    weighted = sum(found[group] * len(names) for group, names in mmeb.GROUPS.items()) / 36
    assert found["overall by data set"] == pytest.approx(weighted)
    assert found["overall by data set"] == pytest.approx((20 * found["IND"] + 16 * found["OOD"]) / 36)
    assert found["overall by group"] == pytest.approx(fmean(found[group] for group in mmeb.GROUPS))


def test_mmeb_averages_of_the_published_row():
    """RetLLM's own group means: neither rule gives the printed 54.2."""
    means = {"Classification": 60.3, "VQA": 27.8, "Retrieval": 62.4, "Grounding": 60.2}
    found = mmeb.averages({name: means[group] for group, names in mmeb.GROUPS.items() for name in names})
    assert found["overall by group"] == pytest.approx(52.675)
    assert found["overall by data set"] == pytest.approx(51.96, abs=0.01)


def test_mmeb_refuses_unknown_and_missing_sets():
    with pytest.raises(UnknownName, match="MMEB"):
        mmeb.averages({"Imagenet": 1.0})
    with pytest.raises(UsageError, match=r"missing ones: DocVQA"):
        mmeb.averages({name: 1.0 for name in mmeb.NAMES if name != "DocVQA"})


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_randomisation_agrees_with_all_sign_assignments(gains):
    flips = itertools.product((-1, 1), repeat=len(gains))
    sums = [abs(math.fsum(s * g for s, g in zip(signs, gains, strict=True))) for signs in flips]
    exact = fmean(total >= abs(math.fsum(gains)) - 1e-12 for total in sums)
    assert randomisation(gains) == pytest.approx(exact, abs=0.03)


def test_comparison_says_who_gained_and_who_lost():
    found = compare({"a": 1.0, "b": 0.2, "c": 0.5, "d": 0.0}, {"a": 0.5, "b": 0.3, "c": 0.5, "d": 0.4})
    assert found.helped == (("a", 0.5),)
    assert [query for query, _ in found.hurt] == ["d", "b"] and found.same == 1
    assert found.difference.mean == pytest.approx(0.0)
    with pytest.raises(UsageError, match="same queries"):
        compare({"a": 1.0}, {"b": 1.0})
    with pytest.raises(UsageError, match="at least one"):
        randomisation([])
