"""Processors with and without torchvision."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import MLLMS, build
from transformers import AutoModelForImageTextToText, AutoProcessor

from looktwice.errors import MissingDependency, ModelError
from looktwice.models import processors
from looktwice.models.checkpoints import resolve
from looktwice.models.processors import load_image_processor, load_processor, load_tokenizer

PICTURES = [Image.effect_mandelbrot((w, h), (-2, -1.2, 1, 1.2), 60).convert("RGB") for w, h in [(120, 70), (50, 64)]]
TURN = [
    {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "The same? 0 or 1"}]}
]


@pytest.mark.parametrize("family", MLLMS)
def test_two_pictures_and_a_question_reach_the_model(family: str, tmp_path: Path) -> None:
    """Every placeholder is filled: the model itself refuses tokens and pictures that do not match."""
    processor = load_processor(resolve(str(build(family, tmp_path / family))))
    prompt = processor.apply_chat_template(TURN, add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[PICTURES], return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / family).eval()
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    assert torch.isfinite(logits).all() and 0.5 < logits.std() < 5


def test_it_is_the_stock_processor_where_that_loads(tmp_path: Path) -> None:
    folder = build("idefics3", tmp_path / "m")
    processors = load_processor(resolve(str(folder))), AutoProcessor.from_pretrained(folder)
    prompts = [processor.apply_chat_template(TURN, add_generation_prompt=True) for processor in processors]
    ours, stock = (
        processor(text=[prompt], images=[PICTURES], return_tensors="np")
        for processor, prompt in zip(processors, prompts, strict=True)
    )
    assert type(processors[0]) is type(processors[1]) and set(ours) == set(stock)
    for name in ours:
        np.testing.assert_array_equal(ours[name], stock[name])


def test_the_video_part_is_dropped_only_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(build("qwen3_vl", tmp_path / "m")))
    cls = processors._processor_class(checkpoint)
    assert "video_processor" in cls.get_attributes()
    assert "video_processor" not in processors._without_video(cls).get_attributes()
    assert issubclass(processors._without_video(cls), cls)
    called = []
    monkeypatch.setattr(processors, "_has", lambda package: True)
    monkeypatch.setattr(cls, "from_pretrained", classmethod(lambda c, *a, **k: called.append(c)))
    load_processor(checkpoint)
    assert called == [cls], "with torchvision the stock class is used"


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_has", lambda package: False)
    folder = build("idefics3", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "smolvlm"}))
    with pytest.raises(MissingDependency, match=r"needs num2words: pip install 'looktwice\[smolvlm\]'"):
        load_processor(resolve(str(folder)))
    folder = build("siglip", tmp_path / "s")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"")
    with pytest.raises(MissingDependency, match=r"looktwice\[siglip\]"):
        load_tokenizer(resolve(str(folder)))


def test_a_checkpoint_without_these_parts_is_refused(tmp_path: Path) -> None:
    folder = build("dinov3", tmp_path / "m")
    with pytest.raises(ModelError, match="no processor for pictures and text"):
        load_processor(resolve(str(folder)))
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(resolve(str(folder)))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        load_image_processor(resolve(str(folder)))


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov2", "dinov3"])
def test_image_processors_are_pillows_everywhere(family: str, tmp_path: Path) -> None:
    processor = load_image_processor(resolve(str(build(family, tmp_path / family))))
    assert processor.backend == "pil"


def test_nothing_here_imports_torchvision() -> None:
    source = Path(processors.__file__).parent
    assert not [path for path in source.rglob("*.py") if "import torchvision" in path.read_text(encoding="utf-8")]
    assert find_spec("looktwice") is not None
