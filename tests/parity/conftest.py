"""Tiny random models of every family, loaded once, and the pairs they are asked about."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pytest
import tiny_models
import torch
from fakes import smooth_noise

from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm
from looktwice.score.local.mllm import Mllm
from looktwice.types import Item

torch.set_num_threads(1)
SIZES = [(50, 70), (90, 60), (33, 200), (64, 64), (150, 31), (28, 28), (301, 97)]


@pytest.fixture(scope="session")
def mllm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mllm]:
    """mllm("qwen3_vl"): a tiny random model of that family, with its processor."""
    loaded: dict[str, Mllm] = {}

    def get(family: str) -> Mllm:
        if family not in loaded:
            folder = tiny_models.build(family, tmp_path_factory.mktemp(family))
            loaded[family] = load_mllm(checkpoints.resolve(str(folder)), place("cpu", "float32"))
        return loaded[family]

    return get


@pytest.fixture(scope="session")
def query() -> dict[str, Item]:
    """Queries by what they have."""
    return {
        "image": Item("q", image=smooth_noise(77, 123)),
        "text": Item("q", text="a blue cup on a table"),
        "both": Item("q", image=smooth_noise(120, 45, 1), text="but at night"),
    }


@pytest.fixture(scope="session")
def candidates() -> list[Item]:
    """Pictures of odd sizes and mixed shapes, with captions of several lengths."""
    text = "two cats, a dog, an old tower by the river, a red bicycle and a small blue cup on a table, all at night"
    return [Item(f"c{i}", image=smooth_noise(*size, i), text=text[: 12 * (i + 1)]) for i, size in enumerate(SIZES)]
