"""Comparing codecs: numbers that must come out in a known order, and Kendall's tau against SciPy."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from apple import Apple, send
from hypothesis import given
from hypothesis import strategies as st
from token_fakes import ToyScorer, make_table

from looktwice.codecs import parse_codec
from looktwice.errors import UsageError
from looktwice.token_index import add_tokens, compare_codecs, open_set
from looktwice.token_index.compare import _squares, kendall_tau
from looktwice.types import Block, VisualTokens


def test_codecs_are_measured_on_real_pairs(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path, 40), ToyScorer()
    specs = ["none", "int8", "pq2x5", "pq8x2", "pool2+int8", "group4:median", "sample2:zero"]
    rows, warnings = compare_codecs(table, scorer, specs, queries=3, depth=6)
    assert [row.codec for row in rows] == specs
    by = {row.codec: row for row in rows}
    assert by["none"].error == by["none"].delta_p == 0 and by["none"].tau == pytest.approx(1)
    assert 0 < by["int8"].error < by["pq2x5"].error < by["pq8x2"].error < 1
    assert by["int8"].delta_p < by["pq8x2"].delta_p
    assert by["pool2+int8"].tokens < by["none"].tokens / 3 and by["sample2:zero"].tokens == by["none"].tokens
    assert by["none"].bytes_per_image > by["int8"].bytes_per_image > by["pq2x5"].bytes_per_image
    assert all(row.pairs == 18 and -1 <= row.tau <= 1 for row in rows)
    assert sum("trained on only" in text for text in warnings) == 2
    assert rows[0].record()["codec"] == "none"


def test_the_uncompressed_query_changes_less(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path, 30), ToyScorer()
    (both,), _ = compare_codecs(table, scorer, ["pq16x2"], queries=5, depth=8)
    (one,), _ = compare_codecs(table, scorer, ["pq16x2"], queries=5, depth=8, asymmetric=True)
    assert both.error == one.error and both.delta_p != one.delta_p


def test_a_codebook_from_a_file_is_used(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path, 20), ToyScorer()
    add_tokens(table, scorer, "pq8x4")
    file = tmp_path / "book"
    file.write_bytes(open_set(table, scorer.info).codec.codebook.to_bytes())
    _, warnings = compare_codecs(table, scorer, ["pool2+pq8x4"], queries=2, depth=4, codebooks=[str(file)])
    assert warnings == []


def test_a_small_table_says_that_it_is_small(tmp_path: Path) -> None:
    _, warnings = compare_codecs(make_table(tmp_path, 4), ToyScorer(), ["pq8x2"])
    assert any("trained on the images that measure it" in text for text in warnings)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer than two readable images"):
        compare_codecs(make_table(tmp_path / "one", 1), ToyScorer(), ["int8"])
    with pytest.raises(UsageError, match=r"cannot take the image"):
        compare_codecs(make_table(tmp_path / "odd", 20), ToyScorer(), ["pool2:zero:released"])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_tau_is_that_of_its_definition(pairs) -> None:
    """Concordant minus discordant pairs, over the geometric mean of the pairs untied in each."""
    a, b = np.array(pairs, np.float32).T
    first, second = (np.sign(np.subtract.outer(x, x)) for x in (a, b))
    untied = math.sqrt(float((first**2).sum()) * float((second**2).sum()))
    wanted = float((first * second).sum()) / untied if untied else math.nan
    assert kendall_tau(a, b) == pytest.approx(wanted, nan_ok=True)
    assert kendall_tau(np.append(a, np.nan), np.append(b, 1)) == pytest.approx(wanted, nan_ok=True)


def test_tau_without_an_order_is_unknown() -> None:
    assert math.isnan(kendall_tau(np.ones(4), np.arange(4)))
    assert math.isnan(kendall_tau(np.full(4, np.nan), np.arange(4)))


def test_errors_are_summed_on_a_device_without_float64() -> None:
    features, levels = torch.randn(6, 16), torch.randn(2, 6, 16)
    near = VisualTokens(features, levels, (Block("global", 2, 3),))
    far = VisualTokens(send(features), send(levels), near.layout)
    for spec in ("none", "int8"):
        with Apple():
            found = _squares(parse_codec(spec), far)
        assert found == pytest.approx(_squares(parse_codec(spec), near), rel=1e-6)
