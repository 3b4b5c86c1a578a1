"""What every scorer holds to, whoever wrote it; and scorers that are written outside of the package."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stub_server import Stub

from looktwice import Item, Reranker, Scorer, load_scorer
from looktwice.errors import ModelError, UsageError
from looktwice.score import load
from looktwice.score.base import ScorerWrapper
from looktwice.score.cache import CachedScorer, ScoreCache
from looktwice.testing import BrightnessScorer
from looktwice.types import PairScores


def flat(id_: str, *colour: int) -> Item:
    return Item(id_, image=Image.new("RGB", (40, 40), colour), sha256=f"sha-{id_}")


QUERY = flat("q", 200, 0, 0)
CANDIDATES = [flat("a", 250, 0, 0), flat("b", 0, 150, 0), flat("c", 60, 60, 60)]


class Minimal:
    """As little as passes for a scorer."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        return BrightnessScorer().score(query, candidates)


class Old(Minimal):
    """As scorers were written before `Scorer`."""

    def describe(self) -> dict[str, str]:
        return {"mllm": "old"}

    def statistics(self) -> dict[str, int]:
        return {"pairs": 3}

    def with_prompt(self, prompt: str) -> Old:
        return self


class Wrapper(ScorerWrapper):
    """As a plug-in builds on another scorer."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        return self.inner.score(query, candidates)


def tiny(**settings: Any) -> Scorer:
    return load_scorer("tiny-vl", device="cpu", dtype="float32", **settings)


@cache
def _stub() -> str:
    stub = Stub()
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    return stub.url


SCORERS: dict[str, Callable[[Path], object]] = {
    "engine": lambda folder: tiny(),
    "engine, digit": lambda folder: tiny(score_mode="digit"),
    "engine, retrace": lambda folder: tiny(retrace="causal"),
    "reference": lambda folder: tiny(path="reference"),
    "generated": lambda folder: tiny(score_mode="written-expected"),
    "listwise": lambda folder: tiny(score_mode="choice"),
    "prior": lambda folder: tiny(prior="candidate"),
    "prior, reference": lambda folder: tiny(prior="query", path="reference"),
    "cached": lambda folder: CachedScorer(tiny(), ScoreCache(folder / "s.db")),
    "server": lambda folder: load_scorer(f"{_stub()}#stub", prompt="object"),
    "server, cached": lambda folder: CachedScorer(load_scorer(f"{_stub()}#stub"), ScoreCache(folder / "s.db")),
    "brightness": lambda folder: BrightnessScorer(),
    "wrapper": lambda folder: Wrapper(BrightnessScorer()),
    "minimal": lambda folder: Minimal(),
    "old": lambda folder: Old(),
}


@pytest.fixture(scope="module", params=list(SCORERS))
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer.of(SCORERS[request.param](tmp_path_factory.mktemp("scorer")))


def test_one_row_per_candidate_in_order(scorer: Scorer) -> None:
    scores = scorer.score(QUERY, CANDIDATES)
    n = len(CANDIDATES)
    assert len(scores.p) == len(scores.status) == len(scores.label_logits) == len(scores.entropy) == n
    assert scores.status == ("ok",) * n and ((scores.p >= 0) & (scores.p <= 1)).all()
    turned = scorer.score(QUERY, CANDIDATES[::-1])
    assert turned.p[::-1] == pytest.approx(scores.p, abs=1e-5)
    if scorer.listwise:
        assert scores.p.sum() == pytest.approx(1, abs=1e-5)
    else:
        assert scorer.score(QUERY, CANDIDATES[1:2]).p == pytest.approx(scores.p[1:2], abs=1e-5)
    assert len(scorer.score(QUERY, []).p) == 0


def test_several_requests_are_answered_in_order(scorer: Scorer) -> None:
    requests = [(QUERY, CANDIDATES), (CANDIDATES[1], CANDIDATES[:1])]
    many = scorer.score_many(requests)
    assert [one.p.tolist() for one in many] == [
        pytest.approx(scorer.score(*one).p.tolist(), abs=1e-6) for one in requests
    ]
    assert scorer.score_many([]) == []


def test_settings_and_stats_are_plain_data(scorer: Scorer) -> None:
    settings = dict(scorer.settings())
    assert isinstance(settings["mllm"], str) and json.loads(json.dumps(settings)) == settings
    json.dumps(dict(scorer.stats()))
    with pytest.warns(DeprecationWarning, match=r"Scorer\.settings"):
        assert scorer.describe() == settings
    with pytest.warns(DeprecationWarning, match=r"Scorer\.stats"):
        assert scorer.statistics().keys() == scorer.stats().keys()


def test_what_a_scorer_is_built_on_is_plain(scorer: Scorer) -> None:
    plain = scorer.plain()
    assert plain.plain() is plain and not isinstance(plain, ScorerWrapper) and not plain.listwise
    assert plain.settings()["mllm"] == scorer.settings()["mllm"]
    assert Scorer.of(scorer) is scorer


def test_another_question_is_asked_or_refused(scorer: Scorer) -> None:
    try:
        other = scorer.with_prompt("landmark")
    except UsageError as error:
        assert "can ask only one question" in str(error)
        return
    assert isinstance(other, Scorer) and other.settings()["mllm"] == scorer.settings()["mllm"]
    assert other.settings().get("prompt") in ("landmark", "choice", None)
    assert other.settings().get("mode") == scorer.settings().get("mode")
    assert len(other.score(QUERY, CANDIDATES).p) == len(CANDIDATES)


def test_visual_tokens_take_the_place_of_images(scorer: Scorer) -> None:
    maker = scorer.tokens()
    if maker is None:
        return
    tokens = maker.visual_tokens(CANDIDATES)
    device, dtype = maker.placement()
    assert len(tokens) == len(CANDIDATES) and maker.tokens_info().mllm == scorer.settings()["mllm"]
    for one in tokens:
        assert one.features.shape[1] == maker.tokens_info().width and one.features.dtype == dtype
        assert str(one.features.device) == str(device)
    shown = [Item(c.id, tokens=t, sha256=c.sha256) for c, t in zip(CANDIDATES, tokens, strict=True)]
    if not scorer.listwise:  # the order of its options follows from what stands in them
        assert scorer.score(QUERY, shown).p == pytest.approx(scorer.score(QUERY, CANDIDATES).p, abs=1e-5)


def test_only_the_fast_path_makes_visual_tokens() -> None:
    assert {name for name, make in SCORERS.items() if Scorer.of(make(Path("/tmp"))).tokens() is None} == {
        "reference", "prior, reference", "server", "server, cached", "brightness", "wrapper", "minimal", "old",
    }  # fmt: skip


def test_what_an_old_scorer_says_is_kept() -> None:
    old, minimal = Scorer.of(Old()), Scorer.of(Minimal())
    assert old.settings() == {"mllm": "old"} and old.stats() == {"pairs": 3}
    assert minimal.settings() == {"mllm": "Minimal"} and minimal.stats() == {}
    with pytest.raises(UsageError, match="Minimal can ask only one question"):
        minimal.with_prompt("match")


def test_a_mode_that_needs_no_wrapper_comes_without_one() -> None:
    for name in ("generated", "listwise"):
        found = Scorer.of(SCORERS[name](Path())).with_prompt("match-query-first", "p-label")
        assert found.settings()["mode"] == "p-label" and not found.listwise and not isinstance(found, ScorerWrapper)


def test_a_mode_that_needs_a_wrapper_is_not_read_as_another() -> None:
    for made in (tiny(), tiny(path="reference")):
        with pytest.raises(UsageError, match="load the scorer with score_mode"):
            made.with_prompt("score", "written")


def test_answers_of_a_wrong_shape_are_refused_by_the_name_of_their_class() -> None:
    class Short:
        def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
            return BrightnessScorer().score(query, candidates[1:])

    with pytest.raises(ModelError, match="The scorer Short gave 2 scores for 3 pairs"):
        Scorer.of(Short()).score(QUERY, CANDIDATES)


def test_what_is_no_scorer_is_refused() -> None:
    for wrong in (object(), 3, None, np.zeros(2)):
        with pytest.raises(UsageError, match="is not a scorer"):
            Scorer.of(wrong)


def test_the_old_name_of_the_seam_says_what_it_is_called_now() -> None:
    import looktwice.types

    with pytest.warns(DeprecationWarning, match=r"looktwice\.Scorer"):
        protocol = looktwice.types.PairScorer
    assert isinstance(Old(), protocol) and isinstance(BrightnessScorer(), protocol)


OUTSIDE = """
from looktwice import Scorer
from looktwice.testing import BrightnessScorer


class Darkness(BrightnessScorer):
    def __init__(self, name, prompt, config):
        super().__init__()
        self.name, self.prompt, self.config = name, prompt, config

    def score(self, query, candidates):
        scores = super().score(query, candidates)
        scores.p[:] = 1 - scores.p
        return scores

    def with_prompt(self, prompt, mode=None):
        return Darkness(self.name, prompt, self.config)

    def settings(self):
        return {"mllm": self.name, "prompt": getattr(self.prompt, "name", self.prompt), "batch": self.config.batch_size}
"""


def test_a_scheme_brings_a_scorer_from_outside_by_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_scorer.py").write_text(OUTSIDE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(load.SCHEMES, "dark://", "outside_scorer:Darkness")
    scorer = load_scorer("dark://room", prompt="match", batch_size=3)
    assert scorer.settings() == {"mllm": "dark://room", "prompt": "match", "batch": 3}
    reranker = Reranker("dark://room", batch_size=3)
    ranked = reranker.rank(Image.new("RGB", (4, 4)), [item.image for item in CANDIDATES])
    assert [row["corpus_id"] for row in ranked] == [2, 1, 0]
    assert reranker.describe()[0]["mllm"] == "dark://room"
    with pytest.raises(UsageError, match="batch_size"):
        load_scorer("dark://room", batch_size=0)
