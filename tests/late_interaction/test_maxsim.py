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
from looktwice.late_interaction import (
    PackedInt8,
    PackedProducts,
    PackedRows,
    agreed,
    rarity,
    scores_of,
    unit_rows,
    weights_of,
)

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


def best_of(query: torch.Tensor, images: list[Any]) -> torch.Tensor:
    packed = PackedRows(torch.from_numpy(np.concatenate(images)))
    parts = torch.split(packed.cosines(query), [len(image) for image in images])
    return torch.stack([part.amax(0) for part in parts])


@given(shapes)
def test_scores_are_those_of_the_loops(shape: tuple[int, list[int], int]) -> None:
    query, images, weights = drawn(shape)
    found = best_of(unit_rows(torch.from_numpy(query)), images)
    scores, best = oracle(query, images, weights)
    assert scores_of(found, torch.from_numpy(weights)).numpy() == pytest.approx(scores, abs=1e-5)
    assert found.numpy() == pytest.approx(best, abs=1e-5)


@given(shapes, st.sampled_from([0.5, 1.0, 4.0]))
def test_weights_add_up_to_one_and_rise_with_rarity(shape: tuple[int, list[int], int], power: float) -> None:
    query, images, _ = drawn(shape)
    rare = rarity(best_of(unit_rows(torch.from_numpy(query)), images))
    weights = weights_of(rare, power)
    assert ((rare >= 0) & (rare <= 2)).all()
    if weights is None:
        assert not (rare > 0).any()
        return
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    assert (weights[torch.argsort(rare)].diff() >= -1e-7).all()


def test_a_token_that_every_image_has_counts_nothing() -> None:
    ground, thing = np.eye(4, dtype=np.float32)[:1], np.eye(4, dtype=np.float32)[1:2]
    images = [np.concatenate([ground, thing]), ground, ground]
    best = best_of(torch.eye(4)[:2], images)
    weights = weights_of(rarity(best))
    assert weights is not None and weights.tolist() == [0.0, 1.0]
    assert scores_of(best, weights).tolist() == [1.0, 0.0, 0.0]
    assert weights_of(rarity(best)[:1]) is None, "all tokens are common"
    assert weights_of(torch.tensor([float("nan"), 0.5])) is None


def test_tokens_without_a_direction_match_nothing() -> None:
    rows = torch.tensor([[0.0, 0.0], [float("nan"), 1.0], [1.0, 0.0]])
    cosines = PackedRows(rows).cosines(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert cosines.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    assert unit_rows(rows).tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


sides = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(st.lists(sides, min_size=1, max_size=2), st.lists(sides, min_size=1, max_size=2), st.integers(0, 2**31))
def test_neighbours_vote_as_the_loops_say(image: Any, query: Any, seed: int) -> None:
    def places(grids: Any) -> list[tuple[int, int, int]]:
        return [(g, r, c) for g, (h, w) in enumerate(grids) for r in range(h) for c in range(w)]

    ours, theirs = places(image), places(query)
    cosines = np.random.default_rng(seed).uniform(-1, 1, (2, len(ours), len(theirs)))
    expected = cosines.copy()
    for j, (g, r, c) in enumerate(ours):
        for i, (k, y, x) in enumerate(theirs):
            beside = [((g, r + dy, c + dx), (k, y + dy, x + dx)) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
            pairs = [(ours.index(a), theirs.index(b)) for a, b in beside if a in ours and b in theirs]
            if pairs:
                votes = np.mean([cosines[:, a, b] for a, b in pairs], axis=0)
                expected[:, j, i] = (cosines[:, j, i] + 0.5 * votes) / 1.5
    found = agreed(torch.from_numpy(cosines), image, query, 0.5)
    assert found.numpy() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(agreed(found, image, query, 0.0), found)


@pytest.mark.parametrize("name", ["pq4", "opq4", "pq4x6", "int8"])
def test_codes_give_the_scores_of_decoded_tokens(name: str) -> None:
    torch.manual_seed(0)
    rows, query = torch.randn(600, 16), unit_rows(torch.randn(5, 16))
    codec = parse_codec(name)
    quantiser: Any = codec.quantiser
    book = train_codebook(quantiser, rows[None]) if isinstance(quantiser, PQ) else None
    codes = quantiser.encode(rows, book, 0)
    decoded = quantiser.decode(codes, torch.float32, torch.float32, book, 0)
    if book is None:
        found = PackedInt8(codes[:, 4:].view(torch.int8)).cosines(query)
    else:
        index = unpack_codes(codes, book.centroids.shape[1], quantiser.bits)
        found = PackedProducts(index, book.centroids[0]).cosines(book.rotate(query, 0))
    torch.testing.assert_close(found, PackedRows(decoded).cosines(query), atol=1e-5, rtol=1e-4)
