"""Models in the shapes of public checkpoints, their weights random and made on the device: nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tiny_models
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from looktwice.models.checkpoints import Checkpoint
from looktwice.models.processors import load_processor
from looktwice.score.load import widen_head
from looktwice.score.local.mllm import Mllm

MODELS = ("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct")
SIDE = {"qwen2_5_vl": 756, "qwen3_vl": 768}
"""Pixels of a square picture: 27 × 27 and 24 × 24 visual tokens."""
TOWER_LAYERS = 4
"""Of a model with few layers: one more than the levels that Qwen3-VL shows."""
# what mllm_shapes.json leaves out because cost does not depend on it
_TOWER: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"num_heads": 16, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    "qwen3_vl": {"num_heads": 16, "num_position_embeddings": 2304},
}
_ROPE = {"qwen2_5_vl": [16, 24, 24], "qwen3_vl": [24, 20, 20]}


def bundled(name: str) -> dict[str, Any]:
    """The sizes of a public model, as looktwice estimates its cost."""
    text = (resources.files("looktwice") / "assets" / "mllm_shapes.json").read_text("utf-8")
    config: dict[str, Any] = json.loads(text)[name]
    return config


def random_model(
    name: str, folder: Path, device: str, dtype: torch.dtype, smoke: bool, layers: int | None = None
) -> Mllm:
    """A model of this shape (smoke: a toy of its family) with the tokenizer and templates of the tests' toys.

    With `layers` it has only so many, a tower of TOWER_LAYERS, the toy's vocabulary, and sees as few pixels as it does.
    """
    shape = bundled(name)
    kind = str(shape["model_type"])
    folder.mkdir()
    config = tiny_models.MLLMS[kind](folder)
    if not smoke:
        words = config["text_config"]["vocab_size"]
        config = grown(config, shape, kind)
        if layers is None:
            budget(folder)
        else:
            config = cut(config, layers, words)
    made = AutoConfig.for_model(**config)
    made.save_pretrained(folder)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(made, dtype=dtype)
    model = model.requires_grad_(False).eval().to(device)
    widen_head(model)
    processor = load_processor(Checkpoint(name, folder, "random", local=True))
    return Mllm(name, "random", model, processor)


def grown(config: Mapping[str, Any], shape: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A toy's configuration with the sizes of a public model."""
    text, tower = dict(shape["text_config"]), dict(shape["vision_config"])
    rope = {**config["text_config"]["rope_parameters"], "mrope_section": _ROPE[kind]}
    text |= {"rope_parameters": rope, "max_position_embeddings": 32_768}
    tower |= {**_TOWER[kind], "out_hidden_size": text["hidden_size"]}
    return {
        **config,
        "text_config": {**config["text_config"], **text},
        "vision_config": {**config["vision_config"], **tower},
        "tie_word_embeddings": text["hidden_size"] < 3000,
    }


def cut(config: Mapping[str, Any], layers: int, words: int) -> dict[str, Any]:
    """The same widths with few layers and words, for machines without a GPU."""
    tower = {**config["vision_config"], "depth": TOWER_LAYERS}
    if "deepstack_visual_indexes" in tower:
        tower["deepstack_visual_indexes"] = [*range(len(tower["deepstack_visual_indexes"]))]
    if "fullatt_block_indexes" in tower:
        tower["fullatt_block_indexes"] = [TOWER_LAYERS - 1]
    text = {**config["text_config"], "num_hidden_layers": layers, "vocab_size": words}
    return {**config, "text_config": text, "vision_config": tower, "tie_word_embeddings": True}


def budget(folder: Path) -> None:
    """Let the toy's processor show pictures whole."""
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text("utf-8"))
    settings.pop("min_pixels", None), settings.pop("max_pixels", None)
    settings["size"] = {"shortest_edge": 28**2, "longest_edge": 1280 * 32**2}
    path.write_text(json.dumps(settings), encoding="utf-8")
