"""timm towers, on a tiny random Perception Encoder; runs where the extra `timm` is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import noise
from safetensors.torch import save_file

from looktwice.encode import load_encoder
from looktwice.encode.patch_tower import PatchTower
from looktwice.encode.timm_tower import keeps_head
from looktwice.errors import MissingDependency
from looktwice.types import Item

SHAPE = {"depth": 2, "embed_dim": 32, "num_heads": 2, "attn_pool_num_heads": 2}
CONFIG = {
    "architecture": "vit_pe_core_base_patch16_224",
    "num_classes": 24,
    "model_args": SHAPE,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "num_classes": 24,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


def write(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(weights, folder / "model.safetensors")
    return folder


def test_without_timm_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.encode.timm_tower.find_spec", lambda package: None)
    folder = write(tmp_path / "pe", {"a": torch.zeros(1)})
    with pytest.raises(MissingDependency, match=r"needs timm; install it with: pip install 'looktwice\[timm\]'"):
        load_encoder(str(folder), device="cpu")


def test_only_projections_are_kept() -> None:
    """PE and CLIP end in a projection, ImageNet models in a classifier whose logits are no embedding."""
    assert keeps_head("vit_pe_core_large_patch14_336") and keeps_head("vit_large_patch14_clip_336")
    assert not keeps_head("vit_base_patch16_224") and not keeps_head("resnet50")


@pytest.fixture
def perception(tmp_path: Path) -> Path:
    timm = pytest.importorskip("timm", reason="the optional extra timm is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    model = timm.create_model(CONFIG["architecture"], num_classes=24, img_size=64, **SHAPE)
    return write(tmp_path / "pe", model.state_dict())


@pytest.mark.parametrize("size", ["", "@48", "@80"])
def test_a_perception_encoder_gives_what_timm_gives(size: str, perception: Path, items: list[Item]) -> None:
    import timm

    encoder = load_encoder(f"{perception}{size}", device="cpu", dtype="float32")
    rows = encoder.encode(items)
    assert rows.shape == (len(items), 24) and encoder.info.dim == 24
    by_hand = timm.create_model(f"local-dir:{perception}", pretrained=True, dynamic_img_size=bool(size)).eval()
    with torch.no_grad():
        vector = by_hand(encoder.pixels.inputs([items[0].image])["pixel_values"])  # type: ignore[attr-defined]
    np.testing.assert_allclose(rows[0], torch.nn.functional.normalize(vector)[0].numpy(), atol=2e-6)


def test_images_of_any_margin_are_prepared_as_timm_prepares_them(perception: Path) -> None:
    """Odd margins were cut a pixel off: timm rounds half a pixel to the even side."""
    import timm

    model = timm.create_model(f"local-dir:{perception}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    images = [noise(width, height) for width, height in [(65, 64), (67, 64), (64, 65), (64, 67), (131, 90), (90, 131)]]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model(torch.stack([transform(image) for image in images])))
    encoder = load_encoder(str(perception), device="cpu", dtype="float32")
    rows = encoder.encode([Item(str(n), image) for n, image in enumerate(images)])
    assert (1 - (rows * expected.numpy()).sum(-1)).max() <= 1e-5


@pytest.mark.parametrize(("size", "grid"), [("", (4, 4)), ("@48", (2, 3))])
def test_its_patch_tokens_are_those_before_pooling(size: str, grid: tuple[int, int], perception: Path) -> None:
    import timm

    tower = PatchTower(load_encoder(f"{perception}{size}", device="cpu", dtype="float32"))
    item = Item("a", noise(60, 40, seed=1))
    (tokens,) = tower.visual_tokens([item])
    (block,) = tokens.layout
    assert (block.h, block.w) == grid and tokens.features.shape == (grid[0] * grid[1], 32)
    by_hand = timm.create_model(f"local-dir:{perception}", pretrained=True, dynamic_img_size=bool(size)).eval()
    with torch.no_grad():
        pixels = tower.encoder.pixels.inputs([item.image])["pixel_values"]  # type: ignore[attr-defined]
        states = by_hand.forward_features(pixels)[0, by_hand.num_prefix_tokens :]
    torch.testing.assert_close(tokens.features, states, atol=2e-5, rtol=1e-4)
