"""Reranker: the conventions of sentence-transformers' CrossEncoder, and what it does with what cannot be scored."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from looktwice.errors import UsageError
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.reranker import Reranker
from looktwice.testing import BrightnessScorer
from looktwice.types import Item, PairScores


@pytest.fixture
def documents(pictures: Path) -> list[Path]:
    return [pictures / name for name in ("red-2.png", "red-0.png", "red-1.png")]


def test_rank_is_sorted_and_names_positions(documents: list[Path]) -> None:
    ranked = Reranker(BrightnessScorer()).rank("something red", documents)
    assert [row["corpus_id"] for row in ranked] == [1, 2, 0]
    assert [row["score"] for row in ranked] == pytest.approx([250 / 255, 150 / 255, 60 / 255])
    assert set(ranked[0]) == {"corpus_id", "score"}
    assert Reranker(BrightnessScorer()).rank("something red", documents, top_k=1) == ranked[:1]


def test_documents_of_every_kind_and_returned_as_given(documents: list[Path]) -> None:
    mixed = [documents[0], str(documents[1]), Image.new("RGB", (2, 2), (128, 0, 0)), "just words", {"text": "more"}]
    ranked = Reranker(BrightnessScorer()).rank("red", mixed, return_documents=True)
    given = {row["corpus_id"]: {k: v for k, v in row.items() if k not in ("corpus_id", "score")} for row in ranked}
    assert given[0] == {"image": documents[0]} and given[1] == {"image": str(documents[1])}
    assert given[2]["image"] is mixed[2] and given[3] == {"text": "just words"} and given[4] == {"text": "more"}


def test_ties_keep_the_order_given(pictures: Path) -> None:
    same = [pictures / "red-0.png", pictures / "blue-0.png", pictures / "green-0.png"]
    assert [row["corpus_id"] for row in Reranker(BrightnessScorer()).rank("x", same)] == [0, 1, 2]


def test_unreadable_and_failed_documents_come_last_with_their_reason(documents: list[Path]) -> None:
    documents[1].write_bytes(b"")
    ranked = Reranker(BrightnessScorer(broken_below=0.5)).rank("red", documents)
    assert [row["corpus_id"] for row in ranked] == [2, 0, 1]
    assert math.isnan(ranked[1]["score"]) and ranked[1]["error"] == "failed"
    assert math.isnan(ranked[2]["score"]) and "empty" in ranked[2]["error"]


def test_predict_keeps_order_and_scores_equal_queries_together(
    documents: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    scorer = BrightnessScorer()
    pairs = [("red", documents[0]), (documents[1], documents[1]), ("red", documents[2]), ("red", "words")]
    p = Reranker(scorer).predict(pairs)
    assert p.dtype == np.float32 and p.tolist() == pytest.approx([60 / 255, 250 / 255, 150 / 255, 0.5])
    assert scorer.shown == [f"the document of pair {i}" for i in (0, 2, 3, 1)]
    documents[0].write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING, "looktwice"):
        p = Reranker(BrightnessScorer()).predict(pairs)
    assert np.isnan(p).tolist() == [True, False, False, False]
    assert "1 of 4 pairs" in caplog.text and "document of pair 0" in caplog.text


def test_pairs_that_are_made_as_they_are_asked_for_keep_their_queries(documents: list[Path]) -> None:
    """A new object may have the id of one that is gone."""

    class Made(list[tuple[Image.Image, Path]]):
        def __len__(self) -> int:
            return 6

        def __iter__(self) -> Iterator[Any]:
            return (self[i] for i in range(6))

        def __getitem__(self, i: Any) -> Any:
            return Image.new("RGB", (2, 2), (40 * i, 0, 0)), documents[0]

    class Same(BrightnessScorer):
        def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
            p = np.full(len(candidates), np.asarray(query.image).max() / 255, np.float32)
            return replace(super().score(query, candidates), p=p)

    assert Reranker(Same()).predict(Made()).tolist() == pytest.approx([40 * i / 255 for i in range(6)])
    picture = Image.new("RGB", (2, 2), (51, 0, 0))
    assert Reranker(Same()).predict([(picture, documents[0])] * 3).tolist() == pytest.approx([0.2] * 3)


def test_what_is_compared_with_the_others_is_never_shown_in_parts(tmp_path: Path) -> None:
    class Listwise(BrightnessScorer):
        listwise = True
        calls: list[int] = []  # noqa: RUF012

        def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
            self.calls.append(len(candidates))
            return super().score(query, candidates)

    files = [tmp_path / f"{i:02}.png" for i in range(45)]
    for i, path in enumerate(files):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(path)
    for path in files[:20]:
        path.write_bytes(b"broken")
    ranked = Reranker(Listwise()).rank("red", files)
    assert Listwise.calls == [25] and [math.isnan(row["score"]) for row in ranked] == [False] * 25 + [True] * 20
    with pytest.raises(UsageError, match="at most 26"):
        Reranker(score_mode="choice", device="cpu").rank(files[44], [*files, *files[20:27]])


def test_nothing_to_rank() -> None:
    assert Reranker(BrightnessScorer()).rank("red", []) == []
    assert Reranker(BrightnessScorer()).predict([]).shape == (0,)


def test_what_is_refused(documents: list[Path]) -> None:
    reranker = Reranker(BrightnessScorer())
    for wrong, message in (
        (lambda: reranker.rank("red", documents, top_k=0), "top_k"),
        (lambda: reranker.rank("red", "document.png"), "must be a list"),
        (lambda: Reranker(retrac="causal"), "retrac"),
        (lambda: reranker.rank("missing.jpg", documents), r"missing\.jpg"),
        (lambda: reranker.rank("red", [*documents, "gone.png"]), "document 3"),
        (lambda: reranker.predict(["ab"]), "Pair 0"),
        (lambda: reranker.predict([("red",)]), "Pair 0"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong()


@pytest.mark.parametrize(
    ("query", "kinds", "prompt"),
    [
        ("picture", ["picture"], "object"),
        ("words", ["picture"], "match-query-first"),
        ("both", ["picture"], "composed"),
        ("picture", ["words"], "caption"),
        ("words", ["picture", "words"], "mixed"),
    ],
)
def test_auto_takes_the_prompt_made_for_the_kinds(
    monkeypatch: pytest.MonkeyPatch, documents: list[Path], query: str, kinds: list[str], prompt: str
) -> None:
    asked: list[str] = []

    def load(mllm: str, *, prompt: str, **options: object) -> BrightnessScorer:
        asked.append(prompt)
        return BrightnessScorer()

    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", load)
    forms = {"picture": documents[0], "words": "some words", "both": {"image": documents[0], "text": "but blue"}}
    Reranker("any").rank(forms[query], [forms[kind] for kind in kinds])
    assert asked == [prompt]


def test_a_prompt_that_does_not_fit_names_those_that_do(documents: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"'object' does not fit.*match"):
        Reranker("tiny-vl", prompt="object").rank("words", documents)


def test_weights_load_once_for_several_prompts(monkeypatch: pytest.MonkeyPatch, documents: list[Path]) -> None:
    loads: list[str] = []

    class Prompted(BrightnessScorer):
        def with_prompt(self, prompt: str) -> BrightnessScorer:
            return self

    def load(mllm: str, *, prompt: str, **options: object) -> Prompted:
        loads.append(prompt)
        return Prompted()

    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", load)
    reranker = Reranker("any")
    reranker.rank("words", documents)
    reranker.rank(documents[0], documents)
    assert loads == ["match-query-first"]


def test_a_second_look_needs_no_model_to_be_made() -> None:
    look = MllmReranker("no-such-model")
    with pytest.raises(UsageError, match="no-such-model"):
        look.scorer("object")
