"""Pooling and sampling: counts, values, positions, and what happens at odd edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from looktwice.codecs import parse_codec, token_count
from looktwice.errors import MediaError
from looktwice.types import Block, Newline, TextIds, VisualTokens

D = 3


def tokens_of(*layout, dtype=torch.float32, levels=0) -> VisualTokens:
    count = token_count(layout)
    torch.manual_seed(count)
    extra = torch.randn(levels, count, D, dtype=dtype) if levels else None
    return VisualTokens(torch.randn(count, D, dtype=dtype), extra, layout)


def through(spec: str, tokens: VisualTokens) -> VisualTokens:
    return parse_codec(spec).round_trip(tokens)


def grid(tokens: VisualTokens) -> torch.Tensor:
    """[h, w, d] of a single block."""
    (block,) = tokens.layout
    return tokens.features.view(block.h, block.w, D)


def test_even_pooling_is_average_pooling_and_replicate_repeats_it() -> None:
    given_ = tokens_of(Block("global", 4, 6))
    pooled = avg_pool2d(grid(given_).permute(2, 0, 1), 2).permute(1, 2, 0)
    torch.testing.assert_close(grid(through("pool2", given_)), pooled)
    repeated = pooled.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(grid(through("pool2:replicate", given_)), repeated)


def test_zero_keeps_the_top_left_and_blanks_the_rest() -> None:
    given_ = tokens_of(Block("global", 4, 4))
    result = grid(through("sample2:zero", given_))
    torch.testing.assert_close(result[::2, ::2], grid(given_)[::2, ::2])
    result[::2, ::2] = 0
    assert not result.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4), st.sampled_from(["pool", "sample"]))
def test_our_edges_lose_nothing(h: int, w: int, size: int, word: str) -> None:
    given_ = tokens_of(Block("tile", h, w))
    result = through(f"{word}{size}", given_)
    assert result.layout == (Block("tile", -(-h // size), -(-w // size), stride=size, grid=(h, w)),)
    assert len(result.features) == token_count(result.layout)
    for r, row in enumerate(grid(result)):
        for c, value in enumerate(row):
            cell = grid(given_)[r * size : (r + 1) * size, c * size : (c + 1) * size]
            wanted = cell.reshape(-1, D).mean(0) if word == "pool" else cell[0, 0]
            torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize(("h", "w"), [(3, 5), (4, 5), (5, 4), (27, 27)])
def test_released_skip_drops_odd_rows_and_columns(h: int, w: int) -> None:
    given_ = tokens_of(Block("global", h, w))
    result = through("pool2:released", given_)
    assert result.layout == (Block("global", h // 2, w // 2, stride=2, grid=(h, w)),)
    pooled = avg_pool2d(grid(given_)[: h // 2 * 2, : w // 2 * 2].permute(2, 0, 1), 2).permute(1, 2, 0)
    torch.testing.assert_close(grid(result), pooled)


def test_released_replicate_leaves_odd_rows_and_columns_alone() -> None:
    given_ = tokens_of(Block("global", 3, 5))
    result = grid(through("pool2:replicate:released", given_))
    torch.testing.assert_close(result[2], grid(given_)[2])
    torch.testing.assert_close(result[:, 4], grid(given_)[:, 4])
    torch.testing.assert_close(result[1, 3], grid(given_)[:2, 2:4].reshape(4, D).mean(0))


def test_released_zero_refuses_odd_grids_and_ours_takes_them() -> None:
    given_ = tokens_of(Block("global", 3, 4))
    with pytest.raises(MediaError, match="2 must divide both sides"):
        through("pool2:zero:released", given_)
    assert len(through("pool2:zero", given_).features) == 12


def test_released_skip_refuses_what_would_leave_nothing() -> None:
    with pytest.raises(MediaError, match="leaves no token"):
        through("sample2:released", tokens_of(Block("global", 1, 8)))


@pytest.mark.parametrize("spec", ["pool2", "pool2:zero", "sample2:replicate", "pool2+int8", "sample3+group4"])
def test_blocks_are_divided_alone_and_the_rest_of_the_layout_stays(spec: str) -> None:
    layout = (
        Block("global", 3, 3),
        Newline(),
        Block("tile", 2, 5, newlines=True),
        TextIds((7, 8)),
        Block("tile", 4, 1),
    )
    given_ = tokens_of(*layout, levels=2)
    result = through(spec, given_)
    assert [type(part) for part in result.layout] == [type(part) for part in layout]
    assert [part for part in result.layout if not isinstance(part, Block)] == [Newline(), TextIds((7, 8))]
    assert result.layout[2].newlines and result.layout[2].rows_cols == (2, 5)
    assert result.levels.shape == (2, token_count(result.layout), D)
    if "group" not in spec:  # what one block holds does not reach into the next
        alone = through(spec, VisualTokens(given_.features[-4:], given_.levels[:, -4:], layout[-1:]))
        torch.testing.assert_close(result.features[-len(alone.features) :], alone.features)


def test_levels_are_pooled_like_the_features() -> None:
    given_ = tokens_of(Block("global", 5, 4), levels=2)
    result = through("pool2", given_)
    for number in range(2):
        alone = through("pool2", VisualTokens(given_.levels[number], None, given_.layout))
        torch.testing.assert_close(result.levels[number], alone.features)
