"""Layouts travel as JSON and come back equal; damaged ones are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looktwice.codecs import layout_from_json, layout_to_json, token_count
from looktwice.errors import StoreError
from looktwice.types import Block, Newline, TextIds

sides = st.integers(1, 40)
parts = (
    st.builds(
        Block,
        st.sampled_from(["global", "tile"]),
        sides,
        sides,
        st.integers(1, 4),
        st.none() | st.tuples(sides, sides),
        st.booleans(),
    )
    | st.builds(Newline)
    | st.builds(TextIds, st.lists(st.integers(0, 200_000), max_size=4).map(tuple))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(parts, max_size=6).map(tuple), sides, sides)
def test_json_round_trip(layout, h, w) -> None:
    layout = (*layout, Block("global", h, w))
    assert layout_from_json(layout_to_json(layout)) == layout


def test_newlines_and_text_are_not_counted() -> None:
    assert token_count((Block("global", 2, 3), Newline(), TextIds((1, 2)), Block("tile", 1, 4, newlines=True))) == 10


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "3", "[]", "[null]", '["newline"]', '[{"global":[0,3]}]', '[{"global":[1,-3]}]',
        '[{"global":[1]}]', '[{"global":[1,2,3]}]', '[{"global":[1.0,2]}]', '[{"global":[true,2]}]',
        '[{"global":[1,1],"tile":[1,1]}]', '[{"global":[1,1],"newlines":1}]', '[{"global":[1,1],"stride":0}]',
        '[{"global":[1,1],"grid":7}]', '[{"global":[1000000,1000000]}]', '[{"ids":[-1]},{"global":[1,1]}]',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(StoreError):
        layout_from_json(text)
