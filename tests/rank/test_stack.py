"""A logistic stack: a fusion of everything that is known of a pair, with a name that parses back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looktwice.errors import Mismatch, UsageError
from looktwice.rank import Fusion, Tuned, fuse
from looktwice.rank.stack import FEATURES, Stack, logit
from looktwice.search.ranking_config import RankingConfig
from looktwice.types import Candidate, PairScores

WEIGHT = st.floats(-50, 50, allow_nan=False)


def scores(p: list[float], entropy: list[float], off_mass: list[float]) -> PairScores:
    n = len(p)
    rows = (np.array(x, np.float32) for x in (p, np.zeros((n, 2)), entropy, off_mass))
    return PairScores(*rows, np.zeros(n, np.int64), ("ok",) * n)


SHORTLIST = [Candidate("a", 0.9), Candidate("b", 0.5), Candidate("c", 0.1)]
SCORES = scores([0.2, 0.7, 0.6], [0.1, 0.9, 0.2], [0.0, 0.3, 0.1])


@given(st.dictionaries(st.sampled_from(["bias", *FEATURES]), WEIGHT, min_size=1))
def test_a_name_parses_back(weights):
    stack = Stack(tuple(weights.items()))
    assert Fusion.parse(str(Fusion("stack", 0.0, stack=stack))).stack == stack


@pytest.mark.parametrize(
    "name", ["stack:", "stack:size=1", "stack:coarse=x", "stack:coarse=nan", "stack:bias=1,bias=2"]
)
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match="not a stack"):
        Fusion.parse(name)


def test_hits_are_ordered_by_the_formula():
    hits = fuse(SHORTLIST, SCORES, "stack:bias=-1,coarse=2,logit=0.5,entropy=-3,off_mass=1")
    for hit in hits:
        i = "abc".index(hit.id)
        p, h, off = (float(x[i]) for x in (SCORES.p, SCORES.entropy, SCORES.off_mass))
        expected = -1 + 2 * SHORTLIST[i].coarse + 0.5 * logit(p) - 3 * h + off
        assert hit.score == pytest.approx(1 / (1 + math.exp(-expected)))
    assert [hit.id for hit in hits] == [hit.id for hit in sorted(hits, key=lambda hit: -hit.score)] == ["a", "c", "b"]


def test_an_unscored_candidate_stays_below():
    hits = fuse([*SHORTLIST, Candidate("d", 1.0)], SCORES, "stack:bias=0,logit=1")
    assert hits[-1].id == "d" and not hits[-1].scored


def test_what_the_scorer_does_not_give_is_refused():
    unknown = scores([0.2, 0.7, 0.6], [np.nan] * 3, [0.0] * 3)
    assert fuse(SHORTLIST, unknown, "stack:bias=0,coarse=1,logit=1")
    with pytest.raises(UsageError, match="entropy or off-mass"):
        fuse(SHORTLIST, unknown, "stack:bias=0,entropy=1")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="middle look"):
        RankingConfig.of("stack:bias=0,maxsim=1")
    assert RankingConfig.of("stack:bias=0,maxsim=1", maxsim=10).fusion.uses_maxsim


def test_a_file_holds_for_what_made_it(tmp_path):
    made = Tuned({"mllm": "m", "prompt": "object"}, "auto", "0.3", {"claimed": True})
    made.save(tmp_path / "t.json")
    found = Tuned.load(tmp_path / "t.json")
    assert found == made and RankingConfig.of(found).fusion == Fusion.parse("0.3")
    found.check({"mllm": "m", "prompt": "object"})
    with pytest.raises(Mismatch, match="mllm 'm'"):
        found.check({"mllm": "other", "prompt": "object"})
    (tmp_path / "t.json").write_text('{"format": 1, "source": {}, "prompt": "auto", "fusion": "best", "gain": {}}')
    with pytest.raises(UsageError, match="looktwice tune"):
        Tuned.load(tmp_path / "t.json")
