"""The second look at the crop that matched best: what it is shown, what it costs, when it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_middle_stage import ToyEncoder
from token_fakes import ToyScorer, make_table

from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.score import Scorer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.store import Table
from looktwice.token_index import add_tokens
from looktwice.token_index.crops import BETWEEN, VIEWS, CroppedTokens, tokens_of_view, view_layouts, views_of
from looktwice.token_index.sets import open_set
from looktwice.types import Block, Item, Layout, PairScores, VisualTokens


class Watching(ToyScorer):
    """Keeps the tokens that it was shown of each candidate."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.shown: list[tuple[str, VisualTokens | None]]
        self.__dict__.setdefault("shown", []).extend((one.id, one.tokens) for one in candidates)
        return super().score(query, candidates)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = make_table(tmp_path)
    add_tokens(made, ToyScorer(), "none")
    add_tokens(made, ToyScorer(), "none", crops=True)
    return made


def crop_of(table: Table, name: str, view: int) -> Item:
    """A query that is one of the views of a stored image."""
    image = Image.open(Path(str(table.path)).parent / "pictures" / name).convert("RGB")
    return Item("query", image=views_of(Item(name, image=image))[view].image)


def search(table: Table, query: Item, scorer: Any, **how: Any) -> Any:
    return Retriever(table, ToyEncoder(), scorer, maxsim=12, shortlist=4, **how).search(query, k=4)


@pytest.mark.parametrize("view", [0, 3])
def test_the_model_is_shown_the_crop_that_matched_best(table: Table, view: int) -> None:
    query = crop_of(table, "p003.png", view)
    whole, both = Watching(), Watching()
    before = {hit.id: hit for hit in search(table, query, whole).hits}
    answer = search(table, query, both, shown="both")
    after = {hit.id: hit for hit in answer.hits}
    assert after["p003.png"].p == pytest.approx(1, abs=1e-5) and after["p003.png"].p > before["p003.png"].p + 0.01
    assert all(after[id_].p >= before[id_].p for id_ in before.keys() & after.keys())
    (tokens,) = CroppedTokens(ToyScorer()).visual_tokens(
        [Item("x", image=Image.open(Path(str(table.path)).parent / "pictures" / "p003.png").convert("RGB"))]
    )
    shown = [tokens for id_, tokens in both.shown if id_ == "p003.png"]
    assert len(shown) == 2 and shown[1] is not None
    torch.testing.assert_close(shown[1].features, tokens_of_view(tokens, view).features)
    counts = answer.manifest["candidates"]
    assert counts["requested"] == 4 and counts["middle_look"]["crops shown"] == len(both.shown) - len(whole.shown)
    assert answer.manifest["shown"] == "both" and len(answer.manifest["candidates_from"]) == 2


def test_crops_are_shown_with_the_prompt_of_the_whole_images(table: Table) -> None:
    """A text among the candidates needs another prompt than images alone."""
    asked: list[str] = []

    class Prompted(ToyScorer):
        prompt = ""

        def with_prompt(self, prompt: str, mode: str | None = None) -> Prompted:
            made = Prompted()
            made.prompt = prompt
            return made

        def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
            asked.append(self.prompt)
            shown = [
                replace(one, image=query.image) if one.image is None and one.tokens is None else one
                for one in candidates
            ]
            return super().score(query, shown)

    class Look(MllmReranker):
        def load_scorer(self, prompt: str) -> Scorer:
            return Prompted().with_prompt(prompt)

    query = crop_of(table, "p003.png", 0)
    how: dict[str, Any] = {"maxsim": 13, "shortlist": 13, "shown": "both", "missing_tokens": "encode"}
    answer = Retriever(table, ToyEncoder(), Look("any"), **how).search(query, k=13)
    assert answer.stats.middle["crops shown"] > 0 and answer.stats.scored == 13
    assert len(set(asked)) == 1, "p of two prompts cannot be compared"


def test_whole_images_are_the_default(table: Table) -> None:
    query = crop_of(table, "p003.png", 0)
    plain, named = search(table, query, ToyScorer()), search(table, query, ToyScorer(), shown="whole")
    assert plain.hits == named.hits and "shown" not in plain.manifest
    assert "crops shown" not in plain.manifest["candidates"]["middle_look"]


def test_cached_scores_of_crops_are_not_those_of_images(table: Table, tmp_path: Path) -> None:
    query = crop_of(table, "p003.png", 0)

    def cached(shown: str) -> tuple[Any, int]:
        scorer = Watching()
        look = MllmReranker(scorer, cache=tmp_path / "scores")
        return search(table, query, look, shown=shown).hits, len(scorer.__dict__.get("shown", ()))

    (first, asked), (again, none) = cached("both"), cached("both")
    assert asked > 4 and none == 0
    assert [(hit.id, hit.p) for hit in first] == [(hit.id, hit.p) for hit in again]
    assert cached("whole")[0] == search(table, query, ToyScorer()).hits


def test_without_crops_of_the_model_it_is_refused(tmp_path: Path, table: Table) -> None:
    bare = make_table(tmp_path / "bare")
    add_tokens(bare, ToyScorer(), "none")
    for how in ({"maxsim": 12}, {"maxsim": 0}):
        with pytest.raises(UsageError, match="add --maxsim 1000, and store crops"):
            Retriever(bare, ToyEncoder(), ToyScorer(), shown="both", **how)
    with pytest.raises(UnknownName, match="whole"):
        Retriever(table, ToyEncoder(), ToyScorer(), maxsim=12, shown="all")


def test_crops_alone_are_not_for_the_second_look(tmp_path: Path) -> None:
    made = make_table(tmp_path)
    add_tokens(made, ToyScorer(), "none", crops=True)
    with pytest.raises(Mismatch, match="which only a middle look uses; run looktwice add-tokens"):
        open_set(made, ToyScorer().tokens_info())


def block(h: int) -> Block:
    return Block("tile", h, 2)


@pytest.mark.parametrize(
    ("layout", "views"),
    [
        ((block(2), BETWEEN, block(1), block(3)), [(block(2),), (block(1), block(3))]),
        ((block(2),) * VIEWS, [(block(2),)] * VIEWS),
    ],
)
def test_views_are_told_apart_by_marks_or_else_by_number(layout: Layout, views: list[Layout]) -> None:
    assert view_layouts(layout) == views
