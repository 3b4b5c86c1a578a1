"""Images scaled by torchvision and by Pillow give the same index: the same identity, and nearly the same p."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from tiny_families import picture
from transformers import AutoImageProcessor

from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm, scorer
from looktwice.score.local.engine import Engine
from looktwice.score.prompting import built_in
from looktwice.types import Item

pytest.importorskip("torchvision", reason="torchvision is not installed, so that there is one resampler only")
SIZES = [(50, 70), (90, 60), (33, 200), (64, 64), (150, 31), (28, 28), (301, 97)]


MOST = {"gemma4": 0.02}
"""Largest difference of p allowed, if not 0.002. Seen: 0.0093; bfloat16 moves p of this random model by 0.23."""


@pytest.mark.parametrize("family", tiny_models.MLLMS)
def test_tokens_of_one_resampler_are_read_with_the_other(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoints.resolve(str(tiny_models.build(family, tmp_path / "m")))
    mllm = load_mllm(checkpoint, place("cpu", "float32"))
    candidates = [Item(f"c{i}", image=picture(*size)) for i, size in enumerate(SIZES)]
    found = {}
    for backend in ("pil", "torchvision"):
        mllm.processor.image_processor = AutoImageProcessor.from_pretrained(checkpoint.source, backend=backend)
        engine = scorer(mllm, built_in.get("object"), path="fast")  # one that remembers no image
        assert isinstance(engine, Engine)
        tokens = engine.visual_tokens(candidates)
        stored = [Item(item.id, tokens=its) for item, its in zip(candidates, tokens, strict=True)]
        found[backend] = engine.tokens_info(), stored
    assert found["pil"][0] == found["torchvision"][0]
    assert [found[name][0].resampler for name in ("pil", "torchvision")] == ["Pillow", "torchvision"]
    query = Item("q", image=picture(77, 123))
    p, other = (engine.score(query, found[backend][1]).p for backend in ("torchvision", "pil"))
    assert 0 < abs(p - other).max() <= MOST.get(family, 0.002)
