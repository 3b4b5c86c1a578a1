"""Names of codecs: what they mean, that they print back, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looktwice.codecs import EXAMPLES, Codec, parse_codec
from looktwice.codecs.clustering import Clustering
from looktwice.codecs.grouping import Grouping
from looktwice.codecs.int8 import Int8
from looktwice.codecs.plain import Plain
from looktwice.codecs.pooling import Pooling
from looktwice.codecs.pq import PQ
from looktwice.codecs.sampling import Sampling
from looktwice.codecs.scalar import RotatedScalar
from looktwice.errors import Mismatch, UnknownName, UsageError

sides, rules = st.integers(2, 16), st.sampled_from(["skip", "zero", "replicate"])
ways = st.sampled_from(["mean", "nearest", "median"])
bits = st.integers(2, 12)
codecs = st.builds(
    Codec,
    cells=st.none()
    | st.builds(Pooling, sides, rules, st.booleans())
    | st.builds(Sampling, sides, rules, st.booleans()),
    groups=st.none()
    | st.builds(Grouping, st.integers(2, 1024), ways)
    | st.builds(Clustering, st.integers(1, 65_535), ways),
    quantiser=st.builds(Plain)
    | st.builds(Int8)
    | st.builds(RotatedScalar, st.integers(1, 6))
    | st.builds(PQ, st.integers(1, 4096), st.none(), bits, st.booleans())
    | st.builds(PQ, st.none(), st.integers(1, 4096), bits, st.booleans()),
)


@settings(max_examples=200, deadline=None)
@given(codecs)
def test_the_name_parses_back(codec: Codec) -> None:
    assert parse_codec(str(codec)) == codec


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_their_own_names(name: str) -> None:
    assert str(parse_codec(name)) == name


@pytest.mark.parametrize(
    ("spec", "name"),
    [("pool2:skip", "pool2"), ("pool2+none", "pool2"), ("pq16x8", "pq16"), ("group4:mean+int8", "group4+int8")],
)
def test_defaults_are_not_printed(spec: str, name: str) -> None:
    assert str(parse_codec(spec)) == name


@pytest.mark.parametrize(
    ("spec", "codec"),
    [
        ("pool2:replicate:released", Codec(Pooling(2, "replicate", True))),
        ("sample3:zero", Codec(Sampling(3, "zero"))),
        ("cluster70:median+opq:448x6", Codec(None, Clustering(70, "median"), PQ(None, 448, 6, True))),
        ("pq8", Codec(quantiser=PQ(8))),
    ],
)
def test_parts_mean_what_they_say(spec: str, codec: Codec) -> None:
    assert parse_codec(spec) == codec


@pytest.mark.parametrize(
    "spec", ["", "pq", "pool", "pq0", "pq016", "int4", "pool2 + int8", "pool2:mean", "PQ16", "pq16+"]
)
def test_what_is_no_codec_is_refused_by_name(spec: str) -> None:
    with pytest.raises(UnknownName, match="Unknown codec"):
        parse_codec(spec)


@pytest.mark.parametrize("spec", ["pq16+pool2", "pool2+sample2", "int8+pq16", "cluster4+pool2", "none+none"])
def test_parts_out_of_order_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="out of order"):
        parse_codec(spec)


@pytest.mark.parametrize("spec", ["pool1", "pool17", "group1", "pq16x1", "pq16x13", "cluster70000"])
def test_numbers_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="must be from"):
        parse_codec(spec)


def test_pq_names_what_divides() -> None:
    with pytest.raises(
        Mismatch, match=r"pq:7 does not divide tokens of width 64; numbers .*: 1, 2, 4, 8, 16, 32, 64\."
    ):
        PQ(None, 7).sub_vectors(64)
    with pytest.raises(Mismatch, match=r"pq24 .* widths .*: 1, 2, 4"):
        PQ(24).sub_vectors(64)


@pytest.mark.parametrize("width", [576, 896, 960, 1536, 2048, 2560, 3584, 4096, 5120, 8192])
def test_one_name_fits_every_model_width(width: int) -> None:
    assert PQ(8).sub_vectors(width) * 8 == PQ(16).sub_vectors(width) * 16 == width
