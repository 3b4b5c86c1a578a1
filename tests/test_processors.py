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
from transformers.image_processing_base import ImageProcessingMixin

from looktwice.errors import MissingDependency, ModelError, UsageError
from looktwice.models import processors
from looktwice.models.checkpoints import resolve
from looktwice.models.device import place
from looktwice.models.processors import load_image_processor, load_processor, load_tokenizer
from looktwice.score.load import check_kind, load_mllm

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


def change(folder: Path, name: str, **values: object) -> Path:
    """Set values of one of the checkpoint's JSON files."""
    path = folder / name
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**settings, **values}))
    return folder


def test_the_video_part_is_dropped_only_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = resolve(str(build("qwen3_vl", tmp_path / "m")))
    cls = processors._processor_class(checkpoint)
    monkeypatch.setattr(processors, "_has", lambda package: False)
    made = load_processor(checkpoint)
    assert isinstance(made, cls) and type(made) is not cls and type(made.video_processor) is ImageProcessingMixin
    called = []
    monkeypatch.setattr(processors, "_has", lambda package: True)
    monkeypatch.setattr(cls, "from_pretrained", classmethod(lambda c, *a, **k: called.append(c)))
    load_processor(checkpoint)
    assert called == [cls], "with torchvision the stock class is used"


def test_a_checkpoints_own_processor_class_comes_before_its_type(tmp_path: Path) -> None:
    """processor_config.json, then preprocessor_config.json, then tokenizer_config.json, then the type, as in stock."""
    folder = build("internvl", tmp_path / "m")
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        change(folder, name, processor_class=None)
    checkpoint = resolve(str(folder))
    assert processors._processor_class(checkpoint).__name__ == "InternVLProcessor"
    names = {
        "config.json": "LlavaProcessor",
        "tokenizer_config.json": "Idefics3Processor",
        "preprocessor_config.json": "AriaProcessor",
        "processor_config.json": "Gemma3Processor",
    }
    for name, cls in names.items():
        change(folder, name, processor_class=cls)
        assert processors._processor_class(checkpoint).__name__ == cls


def test_reasons_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build("internvl", tmp_path / "m")
    change(folder, "processor_config.json", processor_class="MadeUpProcessor")
    with pytest.raises(ModelError, match=r"MadeUpProcessor, which transformers 5\.\S+ does not have"):
        load_processor(resolve(str(folder)))
    change(folder, "processor_config.json", auto_map={"AutoProcessor": "code.MadeUpProcessor"})
    with pytest.raises(ModelError, match="looktwice never runs"):
        load_processor(resolve(str(folder)))
    change(folder, "config.json", model_type="internvl_chat", auto_map={"AutoModel": "code.InternVLChatModel"})
    with pytest.raises(UsageError, match="name the -HF form"):
        check_kind(resolve(str(folder)))
    change(folder, "config.json", model_type="made_up")
    with pytest.raises(UsageError, match="looktwice never runs"):
        check_kind(resolve(str(folder)))
    change(folder, "config.json", auto_map=None)
    with pytest.raises(UsageError, match="does not know"):
        check_kind(resolve(str(folder)))


def smolvlm2(folder: Path) -> Path:
    """SmolVLM2 as the hub lays it out: settings for video among those for images, no file of a video processor."""
    build("idefics3", folder)
    vision = json.loads((folder / "config.json").read_text())["vision_config"] | {"model_type": "smolvlm_vision"}
    change(folder, "config.json", model_type="smolvlm", vision_config=vision)
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}
    kind = {"processor_class": "SmolVLMProcessor", "image_processor_type": "SmolVLMImageProcessor"}
    change(folder, "preprocessor_config.json", **kind, video_sampling=sampling)
    return change(folder, "processor_config.json", processor_class="SmolVLMProcessor")


def test_smolvlm2_is_read_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    checkpoint = resolve(str(smolvlm2(tmp_path / "m")))
    monkeypatch.setattr(processors, "_has", lambda package: package == "num2words")
    monkeypatch.setattr(processing_smolvlm, "num2words", str)  # used for videos only, asked for always
    mllm = load_mllm(checkpoint, place("cpu", "float32"))
    prompt = mllm.processor.apply_chat_template(TURN, add_generation_prompt=True)
    inputs = mllm.processor(text=[prompt], images=[PICTURES], return_tensors="pt")
    assert torch.isfinite(mllm.model(**inputs).logits[0, -1]).all()


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_has", lambda package: False)
    with pytest.raises(
        MissingDependency, match=r"needs num2words; install it with: pip install 'looktwice\[smolvlm\]'"
    ):
        load_processor(resolve(str(smolvlm2(tmp_path / "m"))))
    folder = build("siglip", tmp_path / "s")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"")
    with pytest.raises(MissingDependency, match=r"looktwice\[siglip\]"):
        load_tokenizer(resolve(str(folder)))


def test_a_checkpoint_without_these_parts_is_refused(tmp_path: Path) -> None:
    folder = build("dinov3", tmp_path / "m")
    with pytest.raises(ModelError, match="no processor for images and text"):
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
