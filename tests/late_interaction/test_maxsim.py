"""The maths of the middle look, against an obvious computation in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looktwice.codecs import parse_codec, train_codebook
from looktwice.codecs.pq import PQ, unpack_codes
from looktwice.late_interaction import PackedInt8, PackedProducts, PackedRows, match, rarity, unit_rows, weights_of

shapes = st.tuples(st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 2**31))


def oracle(query: Any, images: list[Any], weights: Any) -> tuple[Any, Any]:
    """Loops over images and tokens, in float64."""
    best = np.zeros((len(images), len(query)))
    for n, image in enumerate(images):
        for i, token in enumerate(query):
            norms = np.linalg.norm(token) * np.linalg.norm(image, axis=1)
            best[n, i] = max(float(x) for x in image @ token / norms)
    return best @ weights, best


def drawn(shape: tuple[int, list[int], int], dim: int = 8) -> tuple[Any, list[Any], Any]:
    """Query tokens, the tokens of images, and weights."""
    queries, lengths, seed = shape
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=(n, dim)).astype(np.float32) for n in lengths]
    weights = rng.uniform(0.1, 1, queries)
    return rng.normal(size=(queries, dim)).astype(np.float32), images, (weights / weights.sum()).astype(np.float32)


def packed(images: list[Any]) -> PackedRows:
    return PackedRows(torch.tensor([len(image) for image in images]), torch.from_numpy(np.concatenate(images)))


@given(shapes)
def test_scores_are_those_of_the_loops(shape: tuple[int, list[int], int]) -> None:
    query, images, weights = drawn(shape)
    found = match(unit_rows(torch.from_numpy(query)), packed(images), torch.from_numpy(weights))
    scores, best = oracle(query, images, weights)
    assert found.scores.numpy() == pytest.approx(scores, abs=1e-5)
    assert found.best.numpy() == pytest.approx(best, abs=1e-5)


@given(shapes)
def test_neither_the_order_of_tokens_nor_other_images_nor_scale_matter(shape: tuple[int, list[int], int]) -> None:
    query, images, weights = drawn(shape)
    unit, weighted = unit_rows(torch.from_numpy(query)), torch.from_numpy(weights)
    alone = [float(match(unit, packed([image]), weighted).scores[0]) for image in images]
    shuffled = [image[::-1].copy() * 7 for image in images]
    assert match(unit, packed(shuffled), weighted).scores.tolist() == pytest.approx(alone, abs=1e-5)


@given(shapes, st.sampled_from([0.5, 1.0, 4.0]))
def test_weights_add_up_to_one_and_rise_with_rarity(shape: tuple[int, list[int], int], power: float) -> None:
    query, images, _ = drawn(shape)
    rare = rarity(match(unit_rows(torch.from_numpy(query)), packed(images)).best)
    weights = weights_of(rare, power)
    assert ((rare >= 0) & (rare <= 2)).all()
    if weights is None:
        assert not (rare > 0).any()
        return
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(torch.argsort(weights, stable=True), torch.argsort(rare, stable=True)) or len(query) == 1


def test_a_token_that_every_image_has_counts_nothing() -> None:
    ground, thing = torch.eye(4)[:1], torch.eye(4)[1:2]
    images = [torch.cat([ground, thing]), ground, ground]
    sample = PackedRows(torch.tensor([2, 1, 1]), torch.cat(images))
    query = torch.cat([ground, thing])
    weights = weights_of(rarity(match(query, sample).best))
    assert weights is not None and weights.tolist() == [0.0, 1.0]
    assert match(query, sample, weights).scores.tolist() == [1.0, 0.0, 0.0]
    assert weights_of(rarity(match(ground, sample).best)) is None, "all tokens are common"
    assert weights_of(torch.tensor([float("nan"), 0.5])) is None


def test_tokens_without_a_direction_match_nothing() -> None:
    rows = torch.tensor([[0.0, 0.0], [float("nan"), 1.0], [1.0, 0.0]])
    found = match(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), PackedRows(torch.tensor([2, 1]), rows))
    assert found.best.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert unit_rows(rows).tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


def test_an_image_without_tokens_has_no_score() -> None:
    found = match(torch.eye(2), PackedRows(torch.tensor([1, 0, 2]), torch.eye(2)[[0, 1, 0]]))
    assert torch.isnan(found.scores).tolist() == [False, True, False]
    assert match(torch.eye(2), PackedRows(torch.tensor([], dtype=torch.int64), torch.zeros(0, 2))).scores.shape == (0,)


@pytest.mark.parametrize("name", ["pq4", "opq4", "pq4x6", "int8"])
def test_codes_give_the_scores_of_decoded_tokens(name: str) -> None:
    torch.manual_seed(0)
    rows, query = torch.randn(600, 16), unit_rows(torch.randn(5, 16))
    lengths = torch.tensor([100, 200, 300])
    codec = parse_codec(name)
    quantiser: Any = codec.quantiser
    book = train_codebook(quantiser, rows[None]) if isinstance(quantiser, PQ) else None
    codes = quantiser.encode(rows, book, 0)
    decoded = quantiser.decode(codes, torch.float32, torch.float32, book, 0)
    if book is None:
        found = match(query, PackedInt8(lengths, codes[:, 4:].view(torch.int8)))
    else:
        index = unpack_codes(codes, book.centroids.shape[1], quantiser.bits)
        found = match(book.rotate(query, 0), PackedProducts(lengths, index, book.centroids[0]))
    expected = match(query, PackedRows(lengths, decoded))
    torch.testing.assert_close(found.best, expected.best, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
