"""Codecs that keep principal dimensions only: names, bytes, what is kept, who uses them."""

from __future__ import annotations

import pytest
import torch

from looktwice.codecs import codebook_from_bytes, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.errors import Mismatch, UsageError
from looktwice.types import Block, VisualTokens

WIDTH, KEPT = 32, 8


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    """Tokens that lie in KEPT of WIDTH dimensions, but for a little noise."""
    torch.manual_seed(7)
    basis = torch.linalg.qr(torch.randn(WIDTH, KEPT))[0]
    torch.manual_seed(seed)
    return torch.randn(count, KEPT) @ basis.T + 0.01 * torch.randn(count, WIDTH)


@pytest.mark.parametrize(
    ("given", "name", "size"),
    [("late64", "late64+opq4", 16), ("late128+opq8", "late128+opq8", 16), ("pool2+late64+pq8", "pool2+late64+pq8", 8)],
)
def test_names_print_back_and_say_the_bytes(given: str, name: str, size: int) -> None:
    codec = parse_codec(given)
    assert str(codec) == name and parse_codec(name) == codec
    assert codec.quantiser.row_bytes(3584, 2) == size == codec.quantiser.row_bytes(192, 2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="goes before pq or opq"):
        parse_codec("late64+int8")
    with pytest.raises(Mismatch, match="late32 or less"):
        parse_codec("late64").quantiser.row_bytes(WIDTH, 2)


@pytest.mark.parametrize("spec", ["late8+opq4", "late8+pq2"])
def test_tokens_of_few_dimensions_survive(spec: str) -> None:
    quantiser = parse_codec(spec).quantiser
    assert isinstance(quantiser, PQ)
    codec = parse_codec(spec).with_codebook(train_codebook(quantiser, tokens(4096)[None]))
    image = VisualTokens(tokens(16, seed=1), None, (Block("global", 4, 4),))
    back = codec.round_trip(image).features
    assert torch.cosine_similarity(back, image.features).min() > 0.8
    plain = parse_codec("pq16").with_codebook(train_codebook(PQ(16), tokens(4096)[None]))
    assert len(codec.encode(image)) - len(plain.encode(image)) == 16 * (codec.quantiser.row_bytes(WIDTH, 4) - 2)
    same = codebook_from_bytes(codec.codebook.to_bytes())  # type: ignore[union-attr]
    assert same == codec.codebook and same.dim == WIDTH
    with pytest.raises(Mismatch, match="width 32"):
        quantiser.check(same, 2 * WIDTH, 1)
