"""The parser of written scores: exactly one number from 0 to 1, or nothing."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looktwice.score.local.generated import _BEGINNING, parse

HOSTILE = [
    "", " ", ".", "-", "-0.5", "+0.5", "00.5", "01", "10", "1.5", "1.0001", "2", "0,5", "85%", "0.5%", "50/100", "1e-1",
    "0x1", "nan", "inf", "True", "0.5 0.7", "0.5/1", "0.5.", "0..5", "Answer: 0.5", "about 0.5", "0.5…", "٠.٥", "０.５",
    "½", "²", "0.\u0665", "0_1", "0.1_0", "(0.5)", "0.5\x00", "0\n.5",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_no_numbers(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("1", 1), ("0.", 0), ("1.", 1), ("1.000", 1), (".25", 0.25), (" 0.85\n", 0.85), ("0.0", 0)],
)
def test_numbers_are_read(text: str, value: float) -> None:
    assert parse(text) == value


@given(st.text() | st.text(alphabet="01.59-+e%, \n", max_size=8))
def test_whatever_is_read_is_a_number_from_0_to_1_spelled_in_ascii_digits(text: str) -> None:
    value = parse(text)
    if value is not None:
        assert 0 <= value <= 1
        assert set(text.strip()) <= set(string.digits + ".")
        assert float(text) == value


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_every_decimal_fraction_is_read_and_so_are_its_beginnings(numerator: int, places: int) -> None:
    text = f"{(numerator % 10**places) / 10**places:.{places}f}"
    assert parse(text) == float(text)
    assert all(_BEGINNING.fullmatch(text[:i]) for i in range(len(text) + 1))
