"""Tiny random Qwen-VL checkpoints with attention heads as wide as vLLM's CPU kernels take them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

TIMES = 2  # heads of 32 in place of 16


def build(family: str, folder: Path) -> Path:
    """Write a checkpoint of `family` as tiny_models does, TIMES as wide, and return its folder."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "WIDTH", TIMES * tiny_models.WIDTH)
        config = tiny_models.FAMILIES[family](folder)
    rope = config["text_config"]["rope_parameters"]
    rope["mrope_section"] = [TIMES * part for part in rope["mrope_section"]]
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
    tiny_models.randomise(model, std=0.2).save_pretrained(folder)
    return folder
