"""Trained re-rankers of sentence-transformers: `rerank:NAME` gives what the library itself gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from looktwice import Item, Reranker, load_scorer
from looktwice.errors import MissingDependency, ModelError, UsageError
from looktwice.score.local.cross_encoder import CrossEncoderScorer
from looktwice.score.prompting import built_in


class Stub:
    """A CrossEncoder of one output: the mean of the document's red, and the length of its text."""

    num_labels, dtype, device = 1, "torch.float32", "cpu"

    def __init__(self) -> None:
        self.asked: list[object] = []

    def predict(self, pairs, *, batch_size, activation_fn, show_progress_bar):
        self.asked += pairs
        return np.array([_red(document) - 2.0 for _, document in pairs], np.float32)


def _red(document):
    return float(np.asarray(document["image"])[..., 0].mean()) / 64 if "image" in document else len(document["text"])


def flat(id_: str, red: int) -> Item:
    return Item(id_, image=Image.new("RGB", (8, 8), (red, 0, 0)), text="unseen")


def test_p_is_the_sigmoid_of_the_score_and_the_prompt_says_what_is_shown():
    model = Stub()
    scorer = CrossEncoderScorer(model, "rerank:stub", "1", built_in.get("object"))
    query = Item("q", image=Image.new("RGB", (8, 8)))
    scores = scorer.score(query, [flat("a", 0), flat("b", 255), Item("c", text="words")])
    assert scores.status == ("ok", "ok", "missing") and np.isnan(scores.p[2])
    assert scores.p[:2] == pytest.approx([1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(2.0 - 255 / 64))])
    assert np.isnan(scores.entropy).all() and np.isnan(scores.off_mass).all()
    assert all(set(document) == {"image"} for _, document in model.asked), "the prompt shows images only"
    assert scorer.score(query, []).p.shape == (0,)


def test_one_question_only():
    scorer = CrossEncoderScorer(Stub(), "rerank:stub", "1", built_in.get("object"))
    assert scorer.with_prompt("caption").settings()["prompt"] == "caption"
    with pytest.raises(UsageError, match="one question"):
        scorer.with_prompt("object", "p-label")


def test_what_the_model_cannot_read_is_said_plainly():
    scorer = CrossEncoderScorer(Stub(), "rerank:stub", "1", built_in.get("object"))
    ranked = Reranker(scorer).rank(Image.new("RGB", (8, 8)), [Image.new("RGB", (8, 8), (250, 0, 0))])
    assert ranked[0]["score"] > 0.5
    scorer.model.predict = lambda *a, **k: (_ for _ in ()).throw(ValueError("Modality 'image' is not supported"))
    with pytest.raises(ModelError, match="cannot read these pairs"):
        scorer.score(Item("q", image=Image.new("RGB", (8, 8))), [flat("a", 0)])


def test_settings_that_it_cannot_heed_are_refused(tmp_path):
    with pytest.raises(UsageError, match="score_mode"):
        load_scorer(f"rerank:{tmp_path}", score_mode="p-true")


def test_without_sentence_transformers_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("looktwice.models.sentence.find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match=r"looktwice\[st\]"):
        load_scorer("rerank:tiny-clip", device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A random Qwen3-VL with the read-out of Qwen3-VL-Reranker, as sentence-transformers saves it."""
    pytest.importorskip("sentence_transformers", reason="the optional extra st is not installed")
    pytest.importorskip("torchvision", reason="the processor of Qwen3-VL needs torchvision here")
    import tiny_models
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    folder = tmp_path_factory.mktemp("reranker")
    base = tiny_models.build("qwen3_vl", folder / "base")
    modules = [Transformer(str(base), transformer_task="any-to-any"), LogitScore(300, 301)]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "saved"))
    return folder / "saved"


def test_a_trained_reranker_scores_as_its_own_library_does(trained):
    from sentence_transformers import CrossEncoder

    query, documents = Image.new("RGB", (64, 64), "red"), [Image.new("RGB", (64, 64), c) for c in ("blue", "red")]
    expected = CrossEncoder(str(trained), device="cpu", local_files_only=True).predict(
        [[{"image": query}, {"image": document}] for document in documents]
    )
    scorer = load_scorer(f"rerank:{trained}", device="cpu", dtype="float32")
    scores = scorer.score(Item("q", query), [Item(str(i), one) for i, one in enumerate(documents)])
    assert scores.p == pytest.approx(expected, abs=1e-5) and abs(expected[0] - expected[1]) > 1e-3
    assert scorer.settings()["mllm"] == f"rerank:{trained}" and scorer.settings()["revision"]
