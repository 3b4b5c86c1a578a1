"""Encoders against what transformers gives when it is called by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoTokenizer

from looktwice.encode import load_encoder
from looktwice.encode.pixels import larger_side
from looktwice.errors import UsageError
from looktwice.models.checkpoints import resolve
from looktwice.models.processors import load_processor
from looktwice.types import Item

Tiny = Callable[[str], Path]
TEXTS = ["a photo of a red bicycle", "Two CATS and a dog", "night"]


FARTHEST = {"float32": 1e-6, "bfloat16": 2e-4}
"""1 - cosine to stock code in float32. Largest seen in bfloat16: 7.5e-5."""


def assert_same(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, atol=2e-6)
    cosines = (found.astype(np.float64) * expected.astype(np.float64)).sum(axis=1)
    assert (1 - cosines).max() < FARTHEST[dtype]


@pytest.fixture(params=FARTHEST)
def dtype(request: pytest.FixtureRequest) -> str:
    """What our encoder computes in, whatever this machine's default is; stock code computes in float32."""
    return str(request.param)


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).detach().numpy()


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_text_and_picture_towers(family: str, tiny: Tiny, items: list[Item], dtype: str) -> None:
    items = items[:6]  # the one as thin as a hair is cut by us, squeezed by SigLIP
    folder = tiny(family)
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if family == "clip":
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    else:  # as SigLIP is trained: lower case, padded on the right, no mask (convert_siglip2_to_hf.py)
        options = {"padding": "max_length", "truncation": True, "max_length": 16, "padding_side": "right"}
        lower = [text.lower() for text in TEXTS]
        tokens = {"input_ids": tokenizer(lower, return_tensors="pt", **options)["input_ids"]}
    with torch.no_grad():
        out = model(**tokens, **processor(images=[item.image for item in items], return_tensors="pt"))
    encoder = load_encoder(str(folder), device="cpu", dtype=dtype)
    assert_same(encoder.encode(items), unit(out.image_embeds), dtype)
    texts = [Item(text, text=text) for text in TEXTS]
    assert_same(encoder.encode(texts), unit(out.text_embeds), dtype)


@pytest.mark.parametrize("family", ["siglip_vision", "siglip2_vision"])
def test_image_towers_of_siglip_give_their_pooled_vector(
    family: str, tiny: Tiny, items: list[Item], dtype: str
) -> None:
    model = AutoModel.from_pretrained(tiny(family)).eval()
    processor = AutoImageProcessor.from_pretrained(tiny(family), backend="pil")
    shown = [item for item in items if min(item.image.size) > 2]  # type: ignore[union-attr]
    with torch.no_grad():
        out = model(**processor(images=[item.image for item in shown], return_tensors="pt"))
    encoder = load_encoder(str(tiny(family)), device="cpu", dtype=dtype)
    assert_same(encoder.encode(shown), unit(out.pooler_output), dtype)


def test_a_tower_without_its_pooling_head_is_refused(tiny: Tiny, items: list[Item], tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny("siglip_vision"), vision_use_head=False)
    shutil.copytree(tiny("siglip_vision"), tmp_path / "headless")
    AutoModel.from_config(config).save_pretrained(tmp_path / "headless")
    with pytest.raises(UsageError, match="without its pooling head"):
        load_encoder(str(tmp_path / "headless"), device="cpu").encode(items[:1])


def test_dinov2_gives_its_class_token(tiny: Tiny, items: list[Item], dtype: str) -> None:
    model = AutoModel.from_pretrained(tiny("dinov2")).eval()
    processor = AutoImageProcessor.from_pretrained(tiny("dinov2"), backend="pil")
    with torch.no_grad():
        out = model(**processor(images=[item.image for item in items], return_tensors="pt"))
    encoder = load_encoder(str(tiny("dinov2")), device="cpu", dtype=dtype)
    assert_same(encoder.encode(items), unit(out.pooler_output), dtype)


def test_dinov3_is_prepared_as_its_own_processor_does_it(tiny: Tiny, dtype: str) -> None:
    """DINOv3's processor exists for torchvision only: rescale, bilinear resize to 32 × 32, normalise."""
    picture = Image.effect_mandelbrot((90, 60), (-2, -1.2, 1, 1.2), 60).convert("RGB")
    resized = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = torch.tensor((resized - 0.5) / 0.5).permute(2, 0, 1)[None]
    model = AutoModel.from_pretrained(tiny("dinov3")).eval()
    with torch.no_grad():
        expected = unit(model(pixel_values=pixels).pooler_output)
    encoder = load_encoder(str(tiny("dinov3")), device="cpu", dtype=dtype)
    assert_same(encoder.encode([Item("p", picture)]), expected, dtype)


def test_larger_side_is_resized_padded_and_interpolated_as_in_ilias(tiny: Tiny, items: list[Item], dtype: str) -> None:
    model = AutoModel.from_pretrained(tiny("clip")).eval()
    picture = items[0].image  # 120 × 70, so 50 × 29: three columns and three rows are missing to a multiple of 7
    assert picture is not None and larger_side(picture.size, 50) == (50, 29)
    resized = np.asarray(picture.resize((50, 29)), np.float32) / 255
    pixels = np.zeros((1, 3, 35, 56), np.float32)
    pixels[0, :, 3:32, 3:53] = ((resized - 0.5) / 0.5).transpose(2, 0, 1)
    with torch.no_grad():
        vectors = model.get_image_features(torch.tensor(pixels), interpolate_pos_encoding=True).pooler_output
    encoder = load_encoder(f"{tiny('clip')}@50", device="cpu", dtype=dtype)
    assert_same(encoder.encode(items[:1]), unit(vectors), dtype)


IMAGE_TOKEN = {
    "idefics3": "<image>",
    "qwen2_5_vl": "<|image_pad|>",
    "qwen3_vl": "<|image_pad|>",
    "internvl": "<IMG_CONTEXT>",
    "llava_onevision": "<image>",
}


@pytest.mark.parametrize("family", IMAGE_TOKEN)
def test_a_tower_is_the_mean_of_what_the_language_model_reads(
    family: str, tiny: Tiny, items: list[Item], dtype: str
) -> None:
    """The visual tokens are caught on their way into the language model of a full forward pass."""
    model = AutoModelForImageTextToText.from_pretrained(tiny(family)).eval()
    processor = load_processor(resolve(str(tiny(family))))
    caught: list[torch.Tensor] = []
    inner = getattr(model.model, "language_model", None) or model.model.text_model
    inner.register_forward_pre_hook(lambda _, args, kwargs: caught.append(kwargs["inputs_embeds"]), with_kwargs=True)
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}], add_generation_prompt=True
    )
    inputs = processor(text=[prompt], images=[[items[0].image]], return_tensors="pt")
    with torch.no_grad():
        model(**inputs)
    where = inputs["input_ids"][0] == processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN[family])
    tokens = caught[0][0][where]
    if family == "llava_onevision":
        rows = (tokens != model.model.image_newline).any(-1)
        assert 0 < (~rows).sum() < len(rows) / 3, "no newline was found"
        tokens = tokens[rows]
    encoder = load_encoder(f"tower:{tiny(family)}", device="cpu", dtype=dtype)
    assert_same(encoder.encode(items[:1]), unit(tokens.mean(0, keepdim=True)), dtype)
