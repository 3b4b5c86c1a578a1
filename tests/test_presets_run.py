"""Presets from end to end, as the README shows them, with tiny models; and what `models --fits` counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub import Hub
from PIL import Image
from test_hub import run
from tiny_models import build
from torch.utils.flop_counter import FlopCounterMode
from transformers import SiglipVisionConfig, SiglipVisionModel

from looktwice.estimate.fits import encoder_flop
from looktwice.estimate.shapes import load_config, shape
from looktwice.models.catalog import BY_NAME, ENTRIES, Entry
from looktwice.models.presets import PRESETS, Preset

MOST = 70  # a codebook of pq16 is trained on 256 tokens or more, and the tiny models make 4 an image
FAMILIES = {"smolvlm-256m": "idefics3", "qwen3-vl-4b": "qwen3_vl", "qwen2.5-vl-7b": "qwen2_5_vl"}


def names(preset: Preset) -> tuple[str, str]:
    """The hub's names of a preset's encoder and MLLM."""
    encoder, _, side = preset.encoder.partition("@")
    sides, mllm = BY_NAME[encoder].hub, BY_NAME[preset.mllm].hub
    return sides[int(side) if side else next(iter(sides))], mllm[0]


@pytest.mark.parametrize("name", ["laptop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpu", "best"))])
def test_a_preset_indexes_and_searches(tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(MOST):
        shade = Image.effect_noise((48, 36), 20.0 + 3 * number).convert("RGB")
        shade.save(tmp_path / "photos" / f"{number:02}.jpg")
    encoder, mllm = names(PRESETS[name])
    made = {encoder: build("siglip", tmp_path / "encoder"), mllm: build(FAMILIES[PRESETS[name].mllm], tmp_path / "vl")}
    with Hub(made) as hub:
        out, err = run(
            hub,
            tmp_path / "home",
            ["index", "photos.lt", "photos", "--preset", name],
            ["search", "photos.lt", "photos/03.jpg", "--preset", name, "-k", "2", "--shortlist", "4", "--json"],
            ["search", "photos.lt", "a red bicycle", "--preset", name, "-k", "2", "--shortlist", "4"],
            ["info", "photos.lt", "--json"],
        )
    assert f"{MOST} added" in out[0] and f"Preset {name} stands for --encoder {PRESETS[name].encoder}" in err[0]
    hits = [json.loads(line) for line in out[1].splitlines()]
    assert hits[0]["id"] == "03.jpg" and hits[0]["coarse"] == pytest.approx(1, abs=1e-3) and hits[0]["p"] is not None
    assert "know drawings" not in "".join(err) and out[2].count(".jpg") == 2
    about = json.loads(out[3])
    (kept,) = about["token_sets"]
    assert (kept["mllm"], kept["codec"], about["tokens"]) == (PRESETS[name].mllm, PRESETS[name].codec, MOST)


@pytest.mark.parametrize("entry", [one for one in ENTRIES if one.kind == "mllm" and one.hub], ids=lambda one: one.name)
def test_parameters_of_the_catalogue_are_those_of_the_shapes(entry: Entry) -> None:
    """All matrices, the embedding once or twice (a head of its own), and less than a tenth for everything else."""
    found = shape(load_config(entry.hub[0]))
    embedding, matrices = found.vocab * found.width, found.weights + found.vision_weights
    assert matrices + embedding <= entry.parameters * 1e6 <= 1.04 * (matrices + 2 * embedding)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_flop_of_an_encoder_are_those_that_torch_counts(preset: Preset) -> None:
    sizes = {"siglip2-b": (12, 768, 3072, 12), "siglip2-l": (24, 1024, 4096, 16)}
    layers, width, ffn, heads = sizes[preset.encoder.partition("@")[0]]
    side = int(names(preset)[0].rpartition("-")[2])
    own = {"hidden_size": width, "intermediate_size": ffn, "num_attention_heads": heads, "num_hidden_layers": layers}
    config = SiglipVisionConfig(**own, image_size=side, patch_size=16)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SiglipVisionModel._from_config(config, attn_implementation="eager")(torch.zeros(1, 3, side, side))
    assert encoder_flop(preset) == pytest.approx(counter.get_total_flops(), rel=0.05)
