"""Ties: truncation with its traps, groups, the paper's choice by entropy and its repaired form."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looktwice.errors import UnknownName, UsageError
from looktwice.rank import Ties, fuse, tied_at_the_top
from looktwice.rank.tie_rule import PRESETS
from looktwice.types import Candidate, PairScores


def scores(p, entropy=None, status=None):
    n = len(p)
    return PairScores(
        p=np.array(p, np.float32),
        label_logits=np.zeros((n, 2), np.float32),
        entropy=np.array([math.nan] * n if entropy is None else entropy, np.float32),
        off_mass=np.zeros(n, np.float32),
        argmax_id=np.zeros(n, np.int64),
        status=tuple(status or ["ok"] * n),
    )


CANDIDATES = [Candidate(name, coarse) for name, coarse in zip("abcd", (0.4, 0.3, 0.2, 0.1), strict=True)]


def ids(*args, **options):
    return "".join(hit.id for hit in fuse(*args, **options))


@pytest.mark.parametrize(
    ("p", "cut"),
    [(0.29, 0.28), (0.58, 0.57), (0.57, 0.56), (0.9991, 0.99), (0.9951, 0.99), (1.0, 1.0), (0.005, 0.0), (0.5, 0.5)],
)
def test_truncation_with_its_traps(p, cut):
    assert PRESETS["released-code"].truncate(p) == cut == int(p * 100) / 100
    assert PRESETS["paper"].truncate(p) == p


@given(st.floats(0, 1), st.integers(0, 9))
def test_cutting_never_adds(p, decimals):
    assert 0 <= Ties("coarse", decimals=decimals).truncate(p) <= p + 1e-15


def test_the_paper_asks_only_those_that_share_the_top_score():
    first = scores([0.85, 0.33, 0.85, 0.25])
    assert tied_at_the_top(CANDIDATES, first, "p-only", "paper") == [0, 2]
    assert tied_at_the_top(CANDIDATES, scores([0.9, 0.3, 0.3, 0.3]), "p-only", "paper") == []
    assert tied_at_the_top(CANDIDATES, first, "p-only", "default") == []
    second = scores([0.9, math.nan, 0.8, math.nan], [0.5, math.nan, 0.2, math.nan], ["ok", "missing", "ok", "missing"])
    assert ids(CANDIDATES, first, "p-only", ties="paper", second=second) == "cabd"
    assert ids(CANDIDATES, first, "p-only", ties="coarse") == "acbd"


def test_a_confident_false_wins_the_papers_tie_and_loses_the_repaired_one():
    first = scores([0.9, 0.9, 0.9, 0.9])
    #            unsure True, sure False, sure True, unsure False
    second = scores([0.7, 0.01, 0.98, 0.4], [0.6, 0.05, 0.1, 0.67])
    assert ids(CANDIDATES, first, "p-only", ties="paper", second=second) == "bcad"
    assert ids(CANDIDATES, first, "p-only", ties="repaired", second=second) == "cadb"


def test_when_all_say_false_the_repaired_form_takes_the_least_sure():
    second = scores([0.01, 0.3, 0.1, 0.2], [0.05, 0.6, 0.3, 0.5])
    first = scores([0.9] * 4)
    assert ids(CANDIDATES, first, "p-only", ties="repaired", second=second) == "bdca"
    assert ids(CANDIDATES, first, "p-only", ties="paper", second=second) == "acdb"


def test_the_released_code_takes_the_entropy_of_the_same_answer_after_truncation():
    first = scores([0.9951, 0.9991, 0.98, 0.5], [0.03, 0.01, 0.1, 0.7])
    assert ids(CANDIDATES, first, "p-only", ties="released-code") == "bacd"
    hits = fuse(CANDIDATES, first, "p-only", ties="released-code", explain=True)
    assert hits[0].score == hits[1].score == 0.99 and hits[0].p == pytest.approx(0.9991)
    assert hits[0].explain["ties"] == "released-code" and "ties" not in hits[2].explain


def test_tolerance_hangs_on_the_best_and_does_not_chain():
    rule = Ties.parse("default,tolerance=0.11")
    assert rule.groups([1.0, 0.95, 0.9, 0.85]) == [[0, 1, 2], [3]]
    first = scores([0.95, 1.0, 0.9, 0.85], [0.1, 0.3, 0.2, 0.0])
    hits = fuse(CANDIDATES, first, "p-only", ties=rule)
    assert "".join(h.id for h in hits) == "acbd" and hits[2].score == 1.0


def test_an_entropy_that_is_not_known_leaves_the_coarse_order():
    assert ids(CANDIDATES, scores([0.5] * 4), "p-only", ties="default") == "abcd"
    assert ids(CANDIDATES, scores([0.5] * 4, [math.nan, 0.1, math.nan, 0.2]), "p-only", ties="default") == "bdac"


probabilities = st.sampled_from([0.0, 0.29, 0.5, 0.500001, 1.0]) | st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(probabilities, st.floats(0, 5) | st.just(math.nan)), max_size=8),
    st.sampled_from(sorted(PRESETS)),
    st.sampled_from(["p-only", "0.5", "rrf"]),
)
def test_every_rule_keeps_every_candidate_and_never_lets_scores_rise(rows, rule, fusion):
    candidates = [Candidate(f"id{i}", 1 - i / 10) for i in range(len(rows))]
    answer = scores([p for p, _ in rows], [h for _, h in rows])
    hits = fuse(candidates, answer, fusion, ties=rule, second=answer)
    assert sorted(h.id for h in hits) == [c.id for c in candidates]
    assert all(a.score >= b.score for a, b in pairwise(hits))


@pytest.mark.parametrize("name", [*PRESETS, "paper,tolerance=0.01", "released-code,decimals=3"])
def test_a_rule_prints_as_its_name(name):
    assert str(Ties.parse(name)) == name


def test_what_is_no_rule_is_refused():
    for name in ("papr", "paper,tolerances=1"):
        with pytest.raises(UnknownName):
            Ties.parse(name)
    for name in ("paper,tolerance=-1", "paper,tolerance=x", "coarse,decimals=12", "coarse,tolerance=nan"):
        with pytest.raises(UsageError):
            Ties.parse(name)
