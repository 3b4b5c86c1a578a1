"""The order of an answer: fusion, ties, failures and the tail."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looktwice.errors import UnknownName, UsageError
from looktwice.rank import Fusion, fuse
from looktwice.types import Candidate, PairScores

FUSIONS = ("0.5", "0.25", "p-only", "1", "rrf", "rrf:10", "coarse=0.5,odds=0.5")


def pair_scores(p, status=None):
    n = len(p)
    return PairScores(
        p=np.array(p, np.float32),
        label_logits=np.zeros((n, 2), np.float32),
        entropy=np.full(n, np.nan, np.float32),
        off_mass=np.zeros(n, np.float32),
        argmax_id=np.zeros(n, np.int64),
        status=tuple(status or ["ok"] * n),
    )


def shortlist(coarse, names="abcdefghijklmnopqrstuvwxyz"):
    return [Candidate(name, score) for name, score in zip(names, coarse, strict=False)]


def ids(hits):
    return "".join(hit.id for hit in hits)


# A coarse score and either a probability or the reason why there is none; few distinct values, so that ties are common.
coarse_values = st.sampled_from([-1.0, 0.0, 0.3, 0.30000001, 0.9, 41.5, 1e17]) | st.floats(-1, 1, width=32)
probabilities = st.sampled_from([0.0, 0.5, 1.0, math.nan]) | st.floats(0, 1, width=32)
rows = st.tuples(coarse_values, probabilities, st.sampled_from(["ok", "ok", "ok", "failed", "missing", "parse_error"]))


@st.composite
def cases(draw):
    """A shortlist, how many of it were scored, and their scores (NaN where the status is not ok)."""
    drawn = draw(st.lists(rows, max_size=12))
    depth = draw(st.integers(0, len(drawn)))
    candidates = [Candidate(f"id{i}", coarse) for i, (coarse, _, _) in enumerate(drawn)]
    looked = [(p if status == "ok" else math.nan, status) for _, p, status in drawn[:depth]]
    return candidates, looked


def scored(looked):
    return pair_scores([p for p, _ in looked], [s for _, s in looked])


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("0.5", "0.5"),
        ("p-only", "p-only"),
        ("rrf", "rrf:60"),
        ("rrf:60", "rrf:60"),
        ("0", "p-only"),
        ("1.0", "1"),
        ("rrf:12.5", "rrf:12.5"),
        (" 0.25 ", "0.25"),
    ],
)
def test_a_fusion_prints_as_its_name(name, printed):
    assert str(Fusion.parse(name)) == printed
    assert Fusion.parse(printed) == Fusion.parse(name)


@given(st.floats(0, 1), st.floats(1e-3, 1e6))
def test_any_weight_parses_back(weight, constant):
    for fusion in (Fusion("linear", weight), Fusion("rrf", constant)):
        assert Fusion.parse(str(fusion)) == fusion


@pytest.mark.parametrize("name", ["1.5", "-0.1", "nan", "inf", "rrf:0", "rrf:-1", "rrf:inf", "rrf:nan"])
def test_a_weight_out_of_range_is_refused(name):
    with pytest.raises(UsageError, match="must"):
        Fusion.parse(name)


@pytest.mark.parametrize("name", ["", "rff", "rrf:", "rrf:x", "p_only", "half", "p-only:3"])
def test_an_unknown_fusion_is_refused_with_what_exists(name):
    with pytest.raises(UnknownName, match="fusion"):
        Fusion.parse(name)


def test_linear_fusion_by_hand():
    hits = fuse(shortlist([0.8, 0.6, 0.4]), pair_scores([0.0, 1.0, 0.5]), "0.5")
    assert ids(hits) == "bca"
    assert [hit.score for hit in hits] == pytest.approx([0.8, 0.45, 0.4])
    assert [hit.p for hit in hits] == [1.0, 0.5, 0.0]
    assert [hit.rank for hit in hits] == [1, 2, 3]


def test_reciprocal_ranks_by_hand_with_a_shared_rank():
    # coarse ranks 1 2 3; p ranks 3 1 1, because b and c are equal
    hits = fuse(shortlist([0.9, 0.8, 0.7]), pair_scores([0.1, 1.0, 1.0]), "rrf:60")
    assert ids(hits) == "bac"  # a and c come out equal: the better coarse score goes first
    assert [hit.score for hit in hits] == pytest.approx([1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 63 + 1 / 61])


def test_reciprocal_ranks_tie_only_where_they_are_equal():
    """They lie closer together than what counts as a tie of probabilities."""
    n = 300
    candidates = [Candidate(f"{i:03}", 1 - i / n) for i in range(n)]
    hits = fuse(candidates, pair_scores([1 - i / n for i in range(n)]), "rrf:5000", ties="default")
    assert [hit.id for hit in hits] == [one.id for one in candidates]
    assert len({hit.score for hit in hits}) == n


def test_a_weight_may_be_a_number():
    assert Fusion.parse(0.25) == Fusion.parse("0.25") and Fusion.parse(0) == Fusion.parse("p-only")
    with pytest.raises(UsageError):
        Fusion.parse(1.5)


def test_saturated_scores_fall_back_to_coarse_and_then_to_the_id():
    candidates = [Candidate("b", 0.5), Candidate("a", 0.5), Candidate("c", 0.7)]
    assert ids(fuse(candidates, pair_scores([1.0, 1.0, 1.0]), "p-only")) == "cab"


def test_the_tail_stays_below_whatever_its_cosine():
    hits = fuse(shortlist([0.9, 0.8, 0.7, 0.6]), pair_scores([0.0, 0.01]), "0.5")
    assert ids(hits) == "abcd"
    assert [hit.scored for hit in hits] == [True, True, False, False]
    assert hits[2].coarse > hits[0].score > hits[1].score > hits[2].score
    assert hits[2].score == pytest.approx(hits[1].score - 1)


def test_a_failed_candidate_is_never_scored_and_leads_the_tail_by_its_coarse_score():
    hits = fuse(shortlist([0.9, 0.8, 0.7, 0.6]), pair_scores([math.nan, 0.2, 0.9], ["failed", "ok", "ok"]), "0.5")
    assert ids(hits) == "cbad"
    failed = hits[2]
    assert (failed.scored, failed.p, failed.explain) == (False, None, {"status": "failed"})
    assert hits[3].explain is None


def test_an_ok_row_without_a_number_counts_as_failed():
    hits = fuse(shortlist([0.9, 0.8]), pair_scores([math.nan, 0.0]), "0.5")
    assert ids(hits) == "ba" and hits[1].explain == {"status": "failed"} and not hits[1].scored


def test_without_a_second_look_coarse_order_and_scores_stand():
    hits = fuse(shortlist([0.2, 0.9]), None)
    assert ids(hits) == "ba" and [hit.score for hit in hits] == [0.9, 0.2] and not any(hit.scored for hit in hits)


def test_explain_says_what_a_hit_was_made_of():
    first, second = fuse(shortlist([0.9, 0.8]), pair_scores([0.5]), "rrf", explain=True)
    assert first.explain == {
        "status": "ok",
        "coarse_rank": 1,
        "fusion": "rrf:60",
        "entropy": None,
        "off_mass": 0.0,
        "label_logits": [0.0, 0.0],
        "labels": [0.5, 0.5],
        "argmax_id": 0,
    }
    assert second.explain == {"status": "not scored", "coarse_rank": 2}


@pytest.mark.parametrize("scores", [None, pair_scores([])])
def test_an_empty_shortlist_gives_no_hits(scores):
    assert fuse([], scores) == []


@pytest.mark.parametrize(
    ("candidates", "scores", "message"),
    [
        ([Candidate("x", 0.1), Candidate("x", 0.2)], None, "more than once"),
        ([Candidate("x", math.nan)], None, "'x' has the coarse score nan"),
        ([Candidate("x", math.inf)], None, "finite"),
        ([Candidate("x", 0.1)], pair_scores([0.1, 0.2]), "2 scores for 1 candidates"),
    ],
)
def test_broken_input_is_refused(candidates, scores, message):
    with pytest.raises(UsageError, match=message):
        fuse(candidates, scores)


@given(cases(), st.sampled_from(FUSIONS))
def test_every_answer_keeps_the_rules(case, fusion):
    candidates, looked = case
    hits = fuse(candidates, scored(looked), fusion)
    assert sorted(hit.id for hit in hits) == sorted(c.id for c in candidates)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert all(math.isfinite(hit.score) for hit in hits)
    gone = {c.id for c, (_, status) in zip(candidates, looked, strict=False) if status == "missing"}
    first = sorted(candidates, key=lambda c: (-c.coarse, c.id))
    if any(hit.scored for hit in hits):
        assert [(h.rank, h.id) for h in hits if h.id in gone] == [
            (r, c.id) for r, c in enumerate(first, 1) if c.id in gone
        ]
    assert all(above.score >= below.score for above, below in itertools.pairwise(hits))
    for above, below in itertools.pairwise(hit for hit in hits if hit.id not in gone):
        assert above.scored or not below.scored
        if not above.scored and not below.scored:
            assert above.coarse >= below.coarse
    usable = {c.id for c, (p, status) in zip(candidates, looked, strict=False) if status == "ok" and math.isfinite(p)}
    assert {hit.id for hit in hits if hit.scored} == usable
    assert all((hit.p is None) != hit.scored for hit in hits)


@given(cases(), st.sampled_from(FUSIONS), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(case, fusion, random):
    candidates, looked = case
    head, tail = list(zip(candidates, looked, strict=False)), candidates[len(looked) :]
    expected = fuse(candidates, scored(looked), fusion)
    random.shuffle(head)
    random.shuffle(tail)
    assert fuse([c for c, _ in head] + tail, scored([s for _, s in head]), fusion) == expected


@given(st.lists(coarse_values, max_size=12), st.data())
def test_weight_one_is_the_coarse_order(coarse, data):
    candidates = [Candidate(f"id{i:02}", value) for i, value in enumerate(sorted(coarse, reverse=True))]
    depth = data.draw(st.integers(0, len(coarse)))
    p = data.draw(st.lists(st.floats(0, 1, width=32), min_size=depth, max_size=depth))
    assert [h.id for h in fuse(candidates, pair_scores(p), "1")] == [h.id for h in fuse(candidates, None)]


@given(cases(), st.sampled_from(("0.5", "p-only", "1", "rrf")), st.data())
def test_a_better_probability_never_costs_a_rank(case, fusion, data):
    candidates, looked = case
    usable = [i for i, (p, status) in enumerate(looked) if status == "ok" and math.isfinite(p)]
    if not usable:
        return
    row = data.draw(st.sampled_from(usable))
    better = data.draw(st.floats(looked[row][0], 1, width=32))
    raised = [*looked[:row], (better, "ok"), *looked[row + 1 :]]
    place = {hit.id: hit.rank for hit in fuse(candidates, scored(looked), fusion)}
    after = {hit.id: hit.rank for hit in fuse(candidates, scored(raised), fusion)}
    assert after[candidates[row].id] <= place[candidates[row].id]


@given(st.floats(0, 1), st.floats(0, 1))
def test_log_odds_keep_the_order_of_p_and_can_be_undone(one: float, other: float) -> None:
    fusion = Fusion.parse("coarse=0,maxsim=0.75,odds=0.25")
    assert 0 <= fusion.reading(one) <= 1
    if one < other:
        assert fusion.reading(one) <= fusion.reading(other)
    if 0.0004 < one < 0.9996:
        assert fusion.p_of(fusion.reading(one)) == pytest.approx(one, abs=1e-9)


def test_log_odds_tell_near_certain_candidates_apart() -> None:
    """p = 0.999 against 0.99 moves a hit past a small lead in maxsim; p itself would not."""
    first, second = Candidate("a", 0.5, maxsim=0.52), Candidate("b", 0.5, maxsim=0.5)
    scores = pair_scores([0.99, 0.999])
    assert ids(fuse([first, second], scores, "coarse=0,maxsim=0.75,p=0.25")) == "ab"
    assert ids(fuse([first, second], scores, "coarse=0,maxsim=0.75,odds=0.25")) == "ba"
    (top, _) = fuse([first, second], scores, "coarse=0,maxsim=0.75,odds=0.25")
    assert top.score == pytest.approx(0.75 * 0.5 + 0.25 * (8 + math.log(0.999 / 0.001)) / 16, abs=1e-5)


def test_a_fusion_has_p_or_its_log_odds() -> None:
    with pytest.raises(UnknownName):
        Fusion.parse("coarse=0.5,p=0.25,odds=0.25")
    with pytest.raises(UnknownName, match="part of a fusion 'q'; known: coarse, maxsim"):
        Fusion.parse("coarse=0.5,q=0.5")
    assert str(Fusion.parse("coarse=0.5,odds=0.5")) == "coarse=0.5,odds=0.5"


@pytest.mark.parametrize("fusion", ["coarse=0,maxsim=0.75,odds=0.25", "maxsim=0.5,p=0.5", "stack:bias=0,maxsim=5"])
def test_a_candidate_without_maxsim_turns_no_others_round(fusion):
    known = [Candidate("a", 0.5, 0.9), Candidate("b", 0.6, 0.6), Candidate("c", 0.7, 0.3)]
    before = fuse(known, pair_scores([0.5] * 3), fusion)
    after = fuse([*known, Candidate("d", 0.4)], pair_scores([0.5] * 4), fusion)
    assert ids(before) == "abc" and ids(after) == "abcd"
    assert [hit.score for hit in after[:3]] == [hit.score for hit in before] and after[3].maxsim is None
