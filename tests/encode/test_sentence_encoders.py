"""`st:` encoders against sentence-transformers called by hand; most run where the extra `st` is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import noise
from safetensors.torch import load_file, save_file

from looktwice.encode import load_encoder
from looktwice.encode.base import BaseEncoder
from looktwice.errors import MissingDependency, ModelError, UsageError
from looktwice.models.checkpoints import resolve
from looktwice.types import Item

Tiny = Callable[[str], Path]


def load(folder: Path, rest: str = "") -> BaseEncoder:
    pytest.importorskip("sentence_transformers", reason="the optional extra st is not installed")
    return load_encoder(f"st:{folder}{rest}", device="cpu", dtype="float32")


def stock(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def far(rows: np.ndarray, expected: np.ndarray) -> float:
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    return float((1 - (rows.astype(np.float64) * unit).sum(-1)).max())


@pytest.fixture
def items() -> list[Item]:
    sizes = [(64, 64), (96, 64), (120, 70), (50, 64), (31, 33)]
    return [Item(f"p{n}", noise(*size, seed=n)) for n, size in enumerate(sizes)]


@pytest.fixture
def saved(tiny: Tiny, tmp_path: Path) -> Path:
    """A checkpoint as sentence-transformers saves it: prompts, and a projection in a folder of its own."""
    pytest.importorskip("sentence_transformers", reason="the optional extra st is not installed")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Transformer

    first = Transformer(str(tiny("clip")))
    second = Dense(24, 16, module_input_name="sentence_embedding", module_output_name="sentence_embedding")
    prompts = {"query": "find: ", "document": "this is "}
    SentenceTransformer(modules=[first, second], prompts=prompts, device="cpu").save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_without_sentence_transformers_the_remedy_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.models.sentence.find_spec", lambda package: None)
    with pytest.raises(
        MissingDependency, match=r"needs sentence-transformers; install it with: pip install 'looktwice\[st\]'"
    ):
        load_encoder(f"st:{tiny('clip')}", device="cpu")


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2"])
def test_plain_checkpoints_give_what_sentence_transformers_gives(family: str, tiny: Tiny, items: list[Item]) -> None:
    encoder, model = load(tiny(family)), stock(tiny(family))
    assert far(encoder.encode(items), model.encode([item.image for item in items])) <= 1e-5
    assert encoder.reads_text == (family != "dinov2")
    if encoder.reads_text:
        texts = ["a photo of a red bicycle", "two cats", "night"]
        rows = encoder.encode([Item(text, text=text) for text in texts])
        assert far(rows, model.encode(texts)) <= 1e-5


def test_prompts_and_further_modules_are_the_checkpoints_own(saved: Path, items: list[Item]) -> None:
    encoder, model = load(saved), stock(saved)
    texts = ["a red bicycle", "two cats and a dog"]
    asked = [Item(text, text=text) for text in texts]
    assert encoder.info.dim == 16 and encoder.info.name == f"st:{saved}"
    assert far(encoder.encode(asked), model.encode_document(texts)) <= 1e-5
    assert far(encoder.encode(items), model.encode_document([item.image for item in items])) <= 1e-5
    documents = encoder.encode(asked)
    assert far(documents, model.encode(texts)) > 1e-4, "prompts change nothing, so this test would not notice"
    queries = encoder.for_queries.encode(asked)
    assert far(queries, model.encode_query(texts)) <= 1e-5 and far(queries, documents) > 1e-4
    mixed = encoder.encode([replace(items[0], text=texts[0])])
    assert far(mixed, encoder.encode(items[:1]) + documents[:1]) <= 1e-6, "half of each, as of other encoders"


def test_every_file_counts_towards_the_revision(saved: Path) -> None:
    before = load(saved).info.revision
    path = next(saved.glob("*_Dense/model.safetensors"))
    weights = load_file(path)
    weights["linear.weight"][0, 0] += 1
    save_file(weights, path)
    assert load(saved).info.revision != before
    assert resolve(str(saved)).revision != before, "without subfolders the revision is another"


def test_text_that_looks_like_an_address_is_text(tiny: Tiny) -> None:
    """sentence-transformers takes such a string for an image and fetches it."""
    encoder = load(tiny("clip"))
    texts = ["https://no.such.host/cat.png", "data:image/png;base64,AAAA", __file__]
    rows = encoder.encode([Item(text, text=text) for text in texts])
    assert np.isfinite(rows).all() and len(np.unique(rows[:, 0])) == 3


def test_both_at_once_where_the_model_reads_both(tiny: Tiny, items: list[Item]) -> None:
    pytest.importorskip("torchvision", reason="the processor of Qwen3-VL needs torchvision here")
    folder = tiny("qwen3_vl_embedding")
    encoder, model = load(folder), stock(folder)
    both = [replace(item, text="a red bicycle") for item in items]
    given = [{"image": item.image, "text": item.text} for item in both]
    assert far(encoder.encode(both), model.encode(given)) <= 1e-5
    assert far(encoder.encode(items), model.encode([item.image for item in items])) <= 1e-5
    with pytest.raises(UsageError, match="reads image and text together"):
        load(folder, "+mix:0.3")


def test_ours_and_sentence_transformers_agree_on_qwen3_vl_embedding(tiny: Tiny, items: list[Item]) -> None:
    """Images that need no resizing: sentence-transformers resizes with torchvision, we with Pillow as published."""
    pytest.importorskip("torchvision", reason="the processor of Qwen3-VL needs torchvision here")
    folder = tiny("qwen3_vl_embedding")
    load(folder)
    shown = [*items[:2], *(replace(item, text="a red bicycle") for item in items[:2]), Item("t", text="two cats")]
    given = [{n: p for n, p in (("image", item.image), ("text", item.text)) if p} for item in shown]
    expected = stock(folder).encode(given, prompt="Represent the user's input.")
    encoder = load_encoder(str(folder), device="cpu", dtype="float32")
    assert far(encoder.encode(shown), expected) <= 1e-5


def test_vectors_may_be_cut(tiny: Tiny, items: list[Item]) -> None:
    whole = load(tiny("clip")).encode(items)
    assert far(load(tiny("clip"), "+dim:8").encode(items), whole[:, :8]) <= 1e-6


def test_what_cannot_be_had_is_said(tiny: Tiny, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out @64"):
        load(tiny("clip"), "@64")
    text_only = tmp_path / "text"
    shutil.copytree(saved, text_only)
    settings = json.loads((text_only / "sentence_bert_config.json").read_text())
    del settings["modality_config"]["image"]
    (text_only / "sentence_bert_config.json").write_text(json.dumps(settings))
    with pytest.raises(UsageError, match="reads no images"):
        load(text_only)


def test_code_and_pickles_of_a_checkpoint_are_refused(saved: Path) -> None:
    modules = json.loads((saved / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (saved / "modules.json").write_text(json.dumps(modules))
    (saved / "custom_st.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(UsageError, match=r"code of its own \(custom_st.Transformer\), which looktwice does not run"):
        load(saved)
    (saved / "modules.json").write_text("[1]")
    with pytest.raises(ModelError, match="cannot be read"):
        load(saved)
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    settings = (saved / "config.json").read_text()
    own = {"model_type": "jina_clip", "auto_map": {"AutoConfig": "custom_st.Config"}}
    (saved / "config.json").write_text(json.dumps(own))
    (saved / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match=r"\(jina_clip\) needs code from its repository"):
        load(saved)
    (saved / "config.json").write_text(settings)
    dense = next(saved.glob("*_Dense"))
    (dense / "model.safetensors").rename(dense / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights"):
        load(saved)


def test_weights_that_are_missing_are_not_made_up(tiny: Tiny, tmp_path: Path) -> None:
    """transformers fills them with random numbers, and sentence-transformers says nothing of it."""
    folder = tmp_path / "part"
    shutil.copytree(tiny("clip"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks some of its weights"):
        load(folder)
