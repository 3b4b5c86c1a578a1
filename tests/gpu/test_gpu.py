"""What must hold on an accelerator: `make test-gpu`. LOOKTWICE_GPU names another device than cuda:0."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch

from looktwice.codecs import parse_codec
from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm, scorer
from looktwice.score.local import memory
from looktwice.score.local.engine import Engine
from looktwice.score.prompting import built_in
from scripts.gpu import parity

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session")
def device() -> str:
    """The device under test; without one this raises, so that nothing is green unseen."""
    parity.exact_products()
    return place(os.environ.get("LOOKTWICE_GPU", "cuda:0")).device


@pytest.mark.parametrize("family", tiny_models.MLLMS)
def test_alone_in_a_batch_and_on_the_reference_path(family: str, device: str, tmp_path: Path) -> None:
    folder = tiny_models.build(family, tmp_path / family)
    row, exact = parity.measured(folder, device, "float32", None)
    assert row["ok"], row
    row, _ = parity.measured(folder, device, "bfloat16", exact)
    assert row["ok"], row


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stored_tokens_score_like_pixels(dtype: str, device: str, tmp_path: Path) -> None:
    folder = tiny_models.build("qwen3_vl", tmp_path / "m")
    fast = scorer(load_mllm(checkpoints.resolve(str(folder)), place(device, dtype)), built_in.get("object"))
    assert isinstance(fast, Engine)
    query, candidates = parity.pairs()
    seen = fast.visual_tokens(candidates)
    assert all(tokens.features.device == torch.device(device) for tokens in seen)
    codec = parse_codec("none")
    codes = [codec.encode(tokens) for tokens in seen]
    read = codec.decode_batch(codes, [t.layout for t in seen], device=device, dtype=fast.mllm.model.dtype)
    stored = [replace(item, image=None, tokens=tokens) for item, tokens in zip(candidates, read, strict=True)]
    assert fast.score(query, stored).p == pytest.approx(fast.score(query, candidates).p, abs=1e-3)


def test_a_batch_that_does_not_fit_is_halved(device: str) -> None:
    """Real memory runs out: rows of 0.45 of it, two of which fit together and four do not."""
    place_ = torch.device(device)
    if place_.type == "cpu":
        pytest.skip("a CPU hands out memory that it has not")
    part = int(0.45 * torch.cuda.mem_get_info(place_)[0])

    def run(rows: Sequence[int]) -> int:
        return torch.empty(len(rows) * part, dtype=torch.uint8, device=device).numel() // part

    found = [(list(rows), fits) for rows, fits in memory.halving(run, [0, 1, 2, 3])]
    assert found == [([0, 1], 2), ([2, 3], 2)]


def test_free_memory_is_known(device: str) -> None:
    assert memory.room(torch.device(device)) > 0
