"""What is sent to vLLM in place of images gives the same logits, read as vLLM reads it: rows at positions from 0 on."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import pytest
import torch

from looktwice.codecs import parse_codec
from looktwice.errors import UsageError
from looktwice.score.load import scorer as scorer_of
from looktwice.score.local.engine import Engine
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Piece
from looktwice.score.remote.tokens import TokenSender, saved
from looktwice.types import Item


def tensor(data: str) -> torch.Tensor:
    found: torch.Tensor = torch.load(io.BytesIO(base64.b64decode(data)), weights_only=True)
    return found


def as_vllm(engine: Engine, line: torch.Tensor) -> torch.Tensor:
    """Next-token logits [V] of a line of embeddings."""
    positions = torch.arange(len(line))[None]
    hidden = engine.family.decoder(inputs_embeds=line[None], position_ids=positions).last_hidden_state
    logits: torch.Tensor = engine.mllm.model.get_output_embeddings()(hidden[0, -1])
    return logits


@pytest.mark.parametrize("family", ["idefics3", "internvl", "llava_onevision"])
@torch.no_grad()
def test_a_line_of_embeddings_gives_the_logits_of_images(
    mllm: Callable[[str], Mllm], query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    engine = scorer_of(mllm(family), built_in.get("object"))
    assert isinstance(engine, Engine)
    sender = TokenSender(engine)
    assert sender.kind == "prompt_embeds"
    shown = [candidate for candidate in candidates if candidate.image is not None][:3]
    expected = {}
    for which, rows in engine.logits(query["image"], shown):
        expected |= dict(zip(which, rows, strict=True))
    for index, candidate in enumerate(shown):
        line = tensor(saved(sender.line(query["image"], candidate)))
        assert torch.allclose(as_vllm(engine, line), expected[index], atol=1e-4)
        swapped = sender.line(candidate, query["image"])
        assert not torch.allclose(as_vllm(engine, swapped), expected[index], atol=1e-2)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_tokens_carry_their_grid_and_their_levels(
    mllm: Callable[[str], Mllm], query: dict[str, Item], family: str
) -> None:
    engine = scorer_of(mllm(family), built_in.get("object"))
    assert isinstance(engine, Engine)
    sender = TokenSender(engine)
    (tokens,) = sender.visual_tokens([query["image"]])
    part = sender.content([Piece("query", None)], {"query": query["image"]})[0]
    assert part["type"] == sender.kind == "image_embeds" and sender.switch == "--enable-mm-embeds"
    rows, grid = (tensor(part["image_embeds"][name]) for name in ("image_embeds", "image_grid_thw"))
    levels = engine.family.levels
    assert rows.shape == (len(tokens.features), tokens.features.shape[1] * (1 + levels))
    merge = int(engine.mllm.model.config.vision_config.spatial_merge_size)
    assert int(grid.prod()) == len(rows) * merge**2 and grid.shape == (3,)
    assert torch.equal(rows[:, : tokens.features.shape[1]], tokens.features)
    if tokens.levels is not None:
        assert torch.equal(rows[:, tokens.features.shape[1] :].reshape(len(rows), levels, -1)[:, 0], tokens.levels[0])


def test_what_vllm_cannot_take_is_refused(mllm: Callable[[str], Mllm], query: dict[str, Item]) -> None:
    for family in ("gemma3", "qwen3_5"):
        engine = scorer_of(mllm(family), built_in.get("object"))
        assert isinstance(engine, Engine)
        with pytest.raises(UsageError, match="takes no stored tokens of"):
            TokenSender(engine)
    engine = scorer_of(mllm("idefics3"), built_in.get("object"))
    assert isinstance(engine, Engine)
    sender = TokenSender(engine)
    pooled = parse_codec("pool2").round_trip(sender.visual_tokens([query["image"]])[0])
    with pytest.raises(UsageError, match="Pooled tokens leave positions empty"):
        sender.line(query["image"], Item("pooled", tokens=pooled))
