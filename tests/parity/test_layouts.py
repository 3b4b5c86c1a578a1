"""The engine: layouts, positions and what a scorer says of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny_models
import torch
from engine_helpers import (
    Get,
    engine,
    plain_fixture,  # noqa: F401  # fixtures
)
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import ModelError, UsageError
from looktwice.score.load import budget, load_scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.base import Family
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in
from looktwice.types import Block, Item, Newline, TextIds, VisualTokens

FAMILIES = list(tiny_models.MLLMS)


def test_positions_by_hand(plain: Family) -> None:
    layout = (TextIds((5,)), Block("tile", 2, 2), TextIds((6,)), Block("global", 1, 2), Newline())
    row = plain.expand_placeholders([1, 9, 2], [layout])
    assert row.ids.tolist() == [1, 5, 9, 9, 9, 9, 6, 9, 9, 9, 2]
    assert row.visual.tolist() == [i in (2, 3, 4, 5, 7, 8) for i in range(11)]
    assert row.newline.nonzero().flatten().tolist() == [9]
    assert row.positions.tolist() == [list(range(11))] and row.starts == (1,)


def test_positions_of_what_a_codec_left(plain: Family) -> None:
    """A 3 × 5 block thinned to 1 × 2: rows of 5 and a newline; the next text stands where it always stood."""
    whole = plain.expand_placeholders([9, 2], [(Block("global", 3, 5, newlines=True),)])
    thin = plain.expand_placeholders([9, 2], [(Block("global", 1, 2, stride=2, grid=(3, 5), newlines=True),)])
    assert whole.positions.tolist() == [list(range(19))]
    assert thin.positions.tolist() == [[0, 2, 5, 18]] and thin.newline.tolist() == [False, False, True, False]


def test_rotary_grids_by_hand(mllm: Get) -> None:
    family = engine(mllm("qwen3_vl")).family
    token = family.image_token_id
    row = family.expand_placeholders([1, token, 2], [(Block("global", 2, 3),)])
    assert row.positions.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4],
        [0, 1, 1, 1, 2, 2, 2, 4],
        [0, 1, 2, 3, 1, 2, 3, 4],
    ]
    thin = family.expand_placeholders([1, token, 2], [(Block("global", 2, 2, stride=2, grid=(5, 4)),)])
    assert thin.positions.tolist() == [[0, 1, 1, 1, 1, 6], [0, 1, 1, 3, 3, 6], [0, 1, 3, 1, 3, 6]]


def test_a_template_that_loses_a_picture_is_refused(plain: Family) -> None:
    with pytest.raises(ModelError, match="number of images"):
        plain.expand_placeholders([1, 2], [(Block("global", 1, 1),)])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", ["object", "match"])
def test_layouts_account_for_every_token(mllm: Get, candidates: list[Item], family: str, prompt: str) -> None:
    fast = engine(mllm(family), prompt)
    info = fast.tokens_info()
    for tokens in fast.visual_tokens(candidates):
        count = sum(part.h * part.w for part in tokens.layout if isinstance(part, Block))
        assert tokens.features.shape == (count, info.width)
        assert (0 if tokens.levels is None else len(tokens.levels)) == info.levels
        assert [p.kind for p in tokens.layout if isinstance(p, Block)].count("global") == 1


def without_attention(model: Mllm) -> Mllm:
    """Gemma 4's random tower, whose attention is not scaled down, would move all tokens alike."""
    copied = replace(model, model=copy.deepcopy(model.model))
    for layer in copied.model.model.vision_tower.encoder.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.linear.weight)
    return copied


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_a_block_stand_row_by_row(mllm: Get, family: str) -> None:
    """A bright spot at the top right moves tokens of the top right: pooling relies on neighbours being neighbours."""
    fast = engine(without_attention(mllm(family)) if family == "gemma4" else mllm(family))
    dark = Image.new("RGB", (128, 128), (90, 90, 90))
    spot = dark.copy()
    spot.paste((250, 20, 20), (104, 4, 124, 24))
    a, b = fast.visual_tokens([Item("a", image=dark), Item("b", image=spot)])
    moved = (a.features - b.features).abs().sum(-1)
    start = 0
    for part in a.layout:
        if isinstance(part, Block) and part.kind == "global":
            block = moved[start : start + part.h * part.w].reshape(part.h, part.w)
            row, column = divmod(int(block.argmax()), part.w)
            assert row < part.h / 2 <= column + 0.5
        start += part.h * part.w if isinstance(part, Block) else 0


@pytest.mark.parametrize("family", FAMILIES)
def test_descriptions_hold_what_a_manifest_needs(mllm: Get, family: str) -> None:
    said = engine(mllm(family), "match-query-first").settings()
    assert said["prompt_hash"] == built_in.get("match-query-first").hash and said["path"] == "fast"
    assert said["shared"] == "query" and said["dtype"] == "float32" and said["device"] == "cpu"
    assert "candidate first" in engine(mllm(family), "match").settings()["shared"]


def test_token_infos_tell_preprocessings_apart(mllm: Get, candidates: list[Item]) -> None:
    llava = mllm("llava_onevision")
    assert engine(llava, "object").tokens_info() != engine(llava, "match").tokens_info()
    assert engine(mllm("idefics3"), "object").tokens_info() == engine(mllm("idefics3"), "match").tokens_info()


def folder_of(mllm: Mllm) -> str:
    return mllm.name


def test_resolution_sets_the_longer_side(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    """2604.13268, section 5, item 7: up as well as down, then snapped; 756 × 567 becomes 27 × 20 tokens."""
    fast = load_scorer(folder_of(mllm("qwen2_5_vl")), resolution=140, device="cpu", dtype="float32")
    slow = load_scorer(folder_of(mllm("qwen2_5_vl")), resolution=140, device="cpu", dtype="float32", path="reference")
    assert isinstance(fast, Engine)
    sizes = [(70, 35), (300, 200), (30, 31)]
    tokens = fast.visual_tokens([Item("x", image=Image.new("RGB", size)) for size in sizes])
    assert [(t.layout[0].h, t.layout[0].w) for t in tokens if isinstance(t.layout[0], Block)] == [
        (2, 5),
        (3, 5),
        (5, 5),
    ]
    assert fast.score(query["image"], candidates).p == pytest.approx(slow.score(query["image"], candidates).p, abs=1e-4)
    assert fast.tokens_info().preprocessing.endswith("@140")
    assert fast.tokens_info() != engine(mllm("qwen2_5_vl")).tokens_info()
    with pytest.raises(UsageError, match="tiles"):
        load_scorer(folder_of(mllm("idefics3")), resolution=140, device="cpu")
    with pytest.raises(UsageError, match="above zero"):
        load_scorer(folder_of(mllm("qwen2_5_vl")), resolution=0, device="cpu")


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([7, 224, 448, 756]))
@example(55, 30, 224)
def test_the_longer_side_is_met_to_the_pixel(width: int, height: int, resolution: int) -> None:
    class Sized:
        size = (width, height)

        def resize(self, size: tuple[int, int]) -> Any:
            made = Sized()
            made.size = size
            return made

    size = Mllm("m", "1", None, None, resolution).scale(Sized()).size  # type: ignore[arg-type]
    assert max(size) == resolution
    assert min(size) == max(1, min(width, height) * resolution // max(width, height))


@pytest.mark.parametrize(("family", "most"), [("idefics3", 1), ("idefics3", 4), ("internvl", 1), ("internvl", 2)])
def test_tiles_are_limited(mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, most: int) -> None:
    fast = load_scorer(folder_of(mllm(family)), max_tiles=most, device="cpu", dtype="float32")
    slow = load_scorer(folder_of(mllm(family)), max_tiles=most, device="cpu", dtype="float32", path="reference")
    assert isinstance(fast, Engine)
    for tokens in fast.visual_tokens(candidates):
        tiles = [p for p in tokens.layout if isinstance(p, Block) and p.kind == "tile"]
        assert len(tiles) <= most and (most > 1 or not tiles)
    assert fast.score(query["image"], candidates).p == pytest.approx(slow.score(query["image"], candidates).p, abs=1e-4)
    with pytest.raises(UsageError, match="tiles"):
        load_scorer(folder_of(mllm("qwen2_5_vl")), max_tiles=2, device="cpu")
    with pytest.raises(UsageError, match="at least 1"):
        budget(mllm(family).model.config, mllm(family).processor, None, 0)


def test_load_scorer_checks_its_words(mllm: Get) -> None:
    with pytest.raises(UsageError, match="auto, fast, reference"):
        load_scorer(folder_of(mllm("idefics3")), path="quick")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        load_scorer(folder_of(mllm("idefics3")), batch_size=0)


def test_stored_tokens_may_be_in_half_precision(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    fast = engine(mllm("qwen3_vl"))
    items = []
    for candidate, tokens in zip(candidates, fast.visual_tokens(candidates), strict=True):
        assert tokens.levels is not None
        half = VisualTokens(tokens.features.half(), tokens.levels.half(), tokens.layout)
        items.append(Item(candidate.id, tokens=half))
    assert fast.score(query["image"], items).p == pytest.approx(fast.score(query["image"], candidates).p, abs=0.01)


def knows_only(name: str, stock: Callable[..., Any], own: str) -> Callable[..., Any]:
    """A forward that takes keys and values as `name` alone, and hands them on as the stock one wants them."""

    def newer(self: Any, *, cache: Any = None, **rest: Any) -> Any:
        assert "past_key_values" not in rest
        return stock(self, **{own: cache}, **rest)

    def older(self: Any, *, past_key_values: Any = None, **rest: Any) -> Any:
        assert "cache" not in rest
        return stock(self, **{own: past_key_values}, **rest)

    return {"cache": newer, "past_key_values": older}[name]


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_keys_and_values_go_by_the_name_that_the_decoder_knows(
    mllm: Get, query: dict[str, Item], candidates: list[Item], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = engine(mllm("qwen3_vl"))
    expected = plain.score(query["image"], candidates[:2]).p
    decoder = type(plain.family.decoder)
    monkeypatch.setattr(decoder, "forward", knows_only(name, decoder.forward, plain.family.cache_argument))
    other = engine(mllm("qwen3_vl"))
    assert other.family.cache_argument == name
    assert other.score(query["image"], candidates[:2]).p == pytest.approx(expected, abs=1e-6)
