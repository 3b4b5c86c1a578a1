"""The second question reaches only those that share the top score, through the whole flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from looktwice.errors import UsageError
from looktwice.score.readout.probability import LabelIds, read
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.rerank_run import rerank_run
from looktwice.search.resolve import in_folder
from looktwice.search.token_choice import CandidateLoader
from looktwice.testing import BrightnessScorer, make_images
from looktwice.types import Item, PairScores


class Torn(BrightnessScorer):
    """Finds all candidates alike at first; asked again, is sure that the brightest is wrong and unsure of the rest."""

    def __init__(self, prompt: str = "object") -> None:
        super().__init__()
        self.prompt = prompt
        self.asked: list[Torn] = []

    def with_prompt(self, prompt: str, mode: str | None = None) -> Torn:
        assert mode == "p-label"
        self.asked.append(Torn(prompt))
        return self.asked[-1]

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        scores = super().score(query, candidates)
        bright = scores.p.copy()
        scores.p[:] = 0.5 if self.prompt == "object" else np.where(bright > 0.9, 0.01, 0.6 + bright / 10)
        scores.p[bright < 0.3] = 0.1
        scores.entropy[:] = np.where(bright > 0.9, 0.05, 0.7 - bright / 10)
        return scores

    def stats(self) -> Mapping[str, Any]:
        return {"asked": len(self.asked)}


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    folder = make_images(tmp_path / "pictures")
    shortlist = {"q": [("red-0.png", 0.9), ("red-2.png", 0.8), ("red-1.png", 0.7), ("grey-2.png", 0.6)]}

    def run(ties: str, scorer: Any) -> Any:
        loader, queries = CandidateLoader(in_folder(folder)), [Item("q", text="red")]
        return next(rerank_run(shortlist, queries, loader, MllmReranker(scorer), fusion="p-only", ties=ties, k=4))

    return run


def test_only_those_at_the_top_are_asked_again(asked: Any) -> None:
    scorer = Torn()
    answer = asked("paper", scorer)
    assert [hit.id for hit in answer.hits] == ["red-0.png", "red-1.png", "red-2.png", "grey-2.png"]
    assert scorer.asked[0].shown == ["red-0.png", "red-1.png"] and scorer.asked[0].prompt == "match-query-first"
    assert answer.manifest["candidates"]["asked_again"] == 2 and answer.manifest["ties"] == "paper"
    assert answer.hits[0].explain["second_p"] == pytest.approx(0.01)


def test_the_repaired_form_does_not_take_the_sure_false(asked: Any) -> None:
    answer = asked("repaired", Torn())
    assert [hit.id for hit in answer.hits][:2] == ["red-1.png", "red-0.png"]


def test_without_a_question_nobody_is_asked(asked: Any) -> None:
    scorer = Torn()
    for ties in ("default", "coarse", "released-code"):
        assert asked(ties, scorer).manifest["candidates"]["asked_again"] == 0
    assert not scorer.asked


def test_a_scorer_that_cannot_be_asked_is_refused(asked: Any) -> None:
    class Deaf(BrightnessScorer):
        def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
            scores = super().score(query, candidates)
            scores.p[:] = 0.5
            return scores

    with pytest.raises(UsageError, match="second question"):
        asked("paper", Deaf())


def test_the_released_codes_entropy_in_bfloat16_seldom_takes_another_winner() -> None:
    """There softmax and entropy are of the model's own bfloat16 logits, with 1e-10 inside the logarithm."""
    logits = 4 * torch.randn(400, 20, 200, generator=torch.Generator().manual_seed(0)).bfloat16()
    half = torch.softmax(logits, -1)
    theirs = -(half * torch.log(half + 1e-10)).sum(-1)
    labels = LabelIds(((0,), (1,)), (0.0, 1.0))
    ours = read(logits.flatten(0, 1).float(), labels).entropy.reshape(400, 20)
    assert 0 < (ours.argmin(1) != theirs.float().numpy().argmin(1)).mean() < 0.05
