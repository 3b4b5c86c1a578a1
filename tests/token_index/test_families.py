"""Codecs on the tokens of every real architecture, and estimates against what its processor really does."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from fakes import smooth_noise

from looktwice.codecs import parse_codec, token_count
from looktwice.estimate.cost import language_tokens
from looktwice.estimate.shapes import image_layout, load_config, shape
from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm, scorer
from looktwice.score.prompting import built_in
from looktwice.types import Block, Item

SIZES = [(64, 64), (90, 61), (33, 150), (128, 40)]


@pytest.fixture(scope="module", params=list(tiny_models.MLLMS))
def engine(request, tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_models.build(request.param, tmp_path_factory.mktemp(request.param))
    loaded = load_mllm(checkpoints.resolve(str(folder)), place("cpu", "float32"))
    made = scorer(loaded, built_in.get("object"), path="fast")
    made.config = load_config(folder)
    return made


@pytest.fixture
def items() -> list[Item]:
    return [Item(f"c{n}", smooth_noise(*size, n)) for n, size in enumerate(SIZES)]


def coded(engine, spec: str, items: list[Item]) -> list[Item]:
    codec = parse_codec(spec)
    tokens = [codec.round_trip(one) for one in engine.visual_tokens(items)]
    return [Item(item.id, tokens=one) for item, one in zip(items, tokens, strict=True)]


def test_uncompressed_codes_give_the_scores_of_the_pictures(engine, items) -> None:
    query = Item("q", smooth_noise(77, 70, 9))
    from_pictures, from_codes = (engine.score(query, given) for given in (items, coded(engine, "none", items)))
    np.testing.assert_array_equal(from_codes.label_logits, from_pictures.label_logits)
    assert from_pictures.label_logits.std() > 0.1


@pytest.mark.parametrize("spec", ["int8", "pool2", "sample2:released", "pool2:replicate", "group4", "cluster3:median"])
def test_every_codec_can_be_scored(engine, items, spec: str) -> None:
    if spec == "sample2:released":
        tokens = engine.visual_tokens(items)
        items = [i for i, t in zip(items, tokens, strict=True) if min(min(b.h, b.w) for b in blocks(t.layout)) > 1]
    given = coded(engine, spec, items)
    scores = engine.score(Item("q", smooth_noise(77, 70, 9)), given)
    assert set(scores.status) == {"ok"} and np.isfinite(scores.p).all()
    plain = engine.score(Item("q", smooth_noise(77, 70, 9)), items)
    assert (np.abs(scores.label_logits - plain.label_logits).max() < 0.5) or spec != "int8"
    assert not np.array_equal(scores.label_logits, plain.label_logits)


def blocks(layout) -> list[Block]:
    return [part for part in layout if isinstance(part, Block)]


def test_levels_travel_with_the_tokens(engine, items) -> None:
    info, (tokens, *_) = engine.tokens_info(), coded(engine, "pool2+int8", items)
    assert (tokens.tokens.levels is None) == (info.levels == 0)
    if info.levels:
        assert tokens.tokens.levels.shape == (info.levels, *tokens.tokens.features.shape)
        assert shape(engine.config).levels == info.levels


@pytest.mark.parametrize("size", SIZES)
def test_an_estimate_counts_the_tokens_that_the_model_makes(engine, size) -> None:
    (tokens,) = engine.visual_tokens([Item("x", smooth_noise(*size))])
    sizes = shape(engine.config)
    guessed = image_layout(sizes, size, max_tiles=None if sizes.tile is None else 4)
    assert token_count(guessed) == token_count(tokens.layout)
    assert sizes.width == tokens.features.shape[1] == engine.tokens_info().width
    assert abs(language_tokens(guessed) - language_tokens(tokens.layout)) <= 2  # markers that merge into one id
    assert not torch.isnan(tokens.features).any()


def test_a_resolution_is_the_longer_side(tmp_path: Path) -> None:
    folder = tiny_models.build("qwen3_vl", tmp_path)
    loaded = load_mllm(checkpoints.resolve(str(folder)), place("cpu", "float32"), resolution=160)
    made = scorer(loaded, built_in.get("object"), path="fast")
    for size in SIZES:
        (tokens,) = made.visual_tokens([Item("x", smooth_noise(*size))])
        assert blocks(tokens.layout) == blocks(image_layout(shape(load_config(folder)), size, resolution=160))
