"""Whole codecs: bytes there and back, alone or in a batch, and what is refused rather than decoded wrongly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looktwice.codecs import Codec, parse_codec, token_count, train_codebook
from looktwice.codecs.record_format import label_bits, pack_labels, unpack_labels
from looktwice.errors import LooktwiceError, MediaError, Mismatch, ModelError, StoreError, UsageError
from looktwice.types import Block, Newline, TextIds, VisualTokens

torch.set_num_threads(1)
D = 16
SPECS = (
    "none", "int8", "rsq3", "pq8x4", "opq8x4", "pool2", "pool2:zero", "pool2:replicate", "sample2", "sample3:released",
    "group4", "group3:median", "cluster5", "cluster5:nearest", "pool2+pq8x4", "pool2:zero+cluster5+int8",
    "sample2+group2+pq4x5",
)  # fmt: skip
LAYOUTS = (
    (Block("global", 5, 7),),
    (Block("global", 3, 3),),
    (Block("global", 4, 4), TextIds((9, 9)), Block("tile", 4, 6, newlines=True), Newline()),
)


def make(layout, *, levels: int = 0, dtype=torch.float32, dim: int = D, seed: int = 0) -> VisualTokens:
    torch.manual_seed(seed)
    count = token_count(layout)
    return VisualTokens(
        torch.randn(count, dim).to(dtype), torch.randn(levels, count, dim).to(dtype) if levels else None, layout
    )


def ready(spec: str, levels: int = 0, dim: int = D) -> Codec:
    codec = parse_codec(spec)
    if not codec.needs_codebook:
        return codec
    torch.manual_seed(7)
    return codec.with_codebook(train_codebook(codec.quantiser, torch.randn(1 + levels, 200, dim)))


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("spec", SPECS)
def test_lengths_shapes_and_batches(spec: str, levels: int) -> None:
    codec, within = ready(spec, levels), 1e-6 if spec.startswith(("opq", "rsq")) else 0  # a rotation rounds
    given_ = [make(layout, levels=levels, seed=seed) for seed, layout in enumerate(LAYOUTS)]
    data = [codec.encode(tokens) for tokens in given_]
    assert [len(one) for one in data] == [codec.image_bytes(tokens.layout, D, levels, 4) for tokens in given_]
    together = codec.decode_batch(data, LAYOUTS)
    for one, layout, decoded in zip(data, LAYOUTS, together, strict=True):
        alone = codec.decode(one, layout)
        count = token_count(codec.shown(layout))
        assert decoded.layout == alone.layout == codec.shown(layout)
        assert decoded.features.shape == (count, D)
        torch.testing.assert_close(decoded.features, alone.features, rtol=0, atol=within)
        if levels:
            assert decoded.levels.shape == (levels, count, D)
            torch.testing.assert_close(decoded.levels, alone.levels, rtol=0, atol=within)
        else:
            assert decoded.levels is None


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(SPECS), st.lists(st.tuples(st.integers(3, 6), st.integers(3, 6)), min_size=1, max_size=4), st.data()
)
def test_the_order_of_a_batch_does_not_matter(spec: str, grids, data) -> None:
    codec = ready(spec)
    layouts = [(Block("global", h, w),) for h, w in grids]
    encoded = [codec.encode(make(layout, seed=number)) for number, layout in enumerate(layouts)]
    order = data.draw(st.permutations(range(len(layouts))))
    straight = codec.decode_batch(encoded, layouts)
    shuffled = codec.decode_batch([encoded[i] for i in order], [layouts[i] for i in order])
    for place, number in enumerate(order):
        torch.testing.assert_close(shuffled[place].features, straight[number].features, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["none", "int8", "pq8x4", "sample2:replicate"]), st.integers(0, 2**20))
def test_encoding_twice_changes_nothing_more(spec: str, seed: int) -> None:
    codec = ready(spec)
    once = codec.round_trip(make(LAYOUTS[0], seed=seed))
    torch.testing.assert_close(codec.round_trip(once).features, once.features, rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["none", "int8", "rsq4", "pq8x4", "opq8x4"]), st.permutations(range(12)))
def test_without_neighbours_tokens_are_coded_one_by_one(spec: str, order) -> None:
    codec, tokens = ready(spec), make((Block("global", 3, 4),))
    moved = VisualTokens(tokens.features[list(order)], None, tokens.layout)
    torch.testing.assert_close(
        codec.round_trip(moved).features, codec.round_trip(tokens).features[list(order)], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_none_is_exact_in_every_dtype_and_two_may_share_a_batch(dtype: torch.dtype) -> None:
    codec, tokens = parse_codec("none"), make(LAYOUTS[2], levels=2, dtype=dtype)
    result = codec.round_trip(tokens)
    assert result.features.equal(tokens.features) and result.levels.equal(tokens.levels)
    assert result.features.dtype == dtype and result.layout == tokens.layout
    other = make(LAYOUTS[0], levels=2)
    pair = codec.decode_batch([codec.encode(tokens), codec.encode(other)], [tokens.layout, other.layout])
    assert pair[0].features.equal(tokens.features) and pair[1].features.equal(other.features)
    assert codec.decode(codec.encode(other), other.layout, dtype=torch.float16).features.dtype == torch.float16


def test_width_3584_with_levels() -> None:
    tokens = make((Block("global", 5, 5),), levels=3, dim=3584, dtype=torch.bfloat16)
    codec = ready("pool2+pq16x2", levels=3, dim=3584)
    data = codec.encode(tokens)
    assert len(data) == 24 + 4 * 9 * 3584 // 16 * 2 // 8
    result = codec.decode(data, tokens.layout)
    assert result.features.shape == (9, 3584) and result.levels.shape == (3, 9, 3584)
    assert result.features.dtype == torch.bfloat16


def test_an_empty_batch_is_an_empty_list() -> None:
    assert ready("int8").decode_batch([], []) == []


@pytest.mark.parametrize("spec", SPECS)
def test_a_layout_that_disagrees_is_refused(spec: str) -> None:
    codec, tokens = ready(spec), make((Block("global", 4, 6),))
    data = codec.encode(tokens)
    for wrong in (
        (Block("global", 6, 4),),
        (Block("tile", 4, 6),),
        (Block("global", 24, 1),),
        (Block("global", 40, 60),),
    ):
        with pytest.raises(StoreError, match="do not match their layout"):
            codec.decode(data, wrong)


@pytest.mark.parametrize("other", ["int8", "pool2:replicate+pq8x4", "pool2+pq8x4"])
def test_codes_of_another_codec_or_codebook_are_refused(other: str) -> None:
    tokens = make((Block("global", 4, 4),))
    data = ready("pool2+pq8x4").encode(tokens)
    codec = parse_codec(other)
    if codec.needs_codebook:
        codec = codec.with_codebook(train_codebook(codec.quantiser, torch.randn(1, 100, D), seed=99))
    with pytest.raises(Mismatch, match="Another codec or codebook"):
        codec.decode(data, tokens.layout)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPECS), st.data())
def test_damaged_bytes_never_crash_and_never_change_the_shape(spec: str, data) -> None:
    codec, tokens = ready(spec), make(LAYOUTS[0])
    whole = bytearray(codec.encode(tokens))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, min(len(whole), 60) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        result = codec.decode(bytes(whole), tokens.layout)
    except LooktwiceError:
        return
    assert result.features.shape == (token_count(codec.shown(tokens.layout)), D)


def test_a_later_version_says_so() -> None:
    tokens = make(LAYOUTS[0])
    data = bytearray(parse_codec("int8").encode(tokens))
    data[2] = 9
    with pytest.raises(StoreError, match="version 9 are newer"):
        parse_codec("int8").decode(bytes(data), tokens.layout)


def test_what_cannot_be_encoded() -> None:
    tokens = make(LAYOUTS[0])
    for bad in (float("nan"), float("inf")):
        features = tokens.features.clone()
        features[3, 3] = bad
        with pytest.raises(MediaError, match="non-finite"):
            parse_codec("int8").encode(VisualTokens(features, None, tokens.layout))
    with pytest.raises(ModelError, match="layout of 9"):
        parse_codec("int8").encode(VisualTokens(tokens.features, None, LAYOUTS[1]))
    with pytest.raises(ModelError, match="Levels"):
        parse_codec("int8").encode(VisualTokens(tokens.features, torch.zeros(2, 3, D), tokens.layout))
    with pytest.raises(UsageError, match="pq8x4 needs a codebook"):
        parse_codec("pq8x4").encode(tokens)
    with pytest.raises(UsageError, match="the model's own tokens"):
        parse_codec("pool2").encode(parse_codec("pool2").round_trip(tokens))
    with pytest.raises(Mismatch, match="further levels"):
        ready("pq8x4").encode(make(LAYOUTS[0], levels=1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=80), st.integers(0, 40))
def test_labels_round_trip(labels: list[int], spare: int) -> None:
    import numpy as np

    kept = max(labels) + 1 + spare
    packed = pack_labels(np.array(labels), kept)
    assert len(packed) == -(-len(labels) * label_bits(kept) // 8)
    assert unpack_labels(packed, len(labels), kept).tolist() == labels


@pytest.mark.parametrize(
    ("spec", "side", "least", "most"),
    [  # the byte table of the method's notes: width 3,584, bfloat16, in thousands of bytes
        ("none", 27, 5225, 5226), ("none", 20, 2867, 2868), ("pool2:released", 27, 1211, 1212),
        ("cluster70", 27, 502, 503), ("pq:448", 27, 326, 327), ("pq:448", 20, 179, 180), ("pq:224", 20, 89, 90),
        ("pq:16", 20, 6, 7), ("pq8", 27, 326, 327), ("pq16", 20, 89, 90),
    ],
)  # fmt: skip
def test_bytes_per_image_at_full_size(spec: str, side: int, least: int, most: int) -> None:
    size = parse_codec(spec).image_bytes((Block("global", side, side),), 3584)
    assert least * 1000 <= size < most * 1000
