"""Names of encoders: what is printed parses back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looktwice.encode import EncoderName, parse
from looktwice.encode.registry import _made_for
from looktwice.errors import UsageError
from looktwice.models.catalog import ENTRIES, names, text_encoders

sides = st.integers(16, 4096)
awkward = st.text(st.sampled_from("ab/.~@#%+:1234é語 \n") | st.characters(codec="utf-8"), min_size=1, max_size=30)
models = awkward | st.sampled_from(
    ["a@384", "a#b", "%40", "50%25", "x+linear:y", "x+mix:y", "x+mix:", "x+dim:8", "org/name", "@1", "#", "a@1/2"]
)


@st.composite
def encoder_names(draw: st.DrawFn) -> EncoderName:
    size = draw(st.none() | sides)
    tower = draw(st.booleans())
    return EncoderName(
        model=draw(models.filter(lambda model: not model.startswith(("tower:", "st:")))),
        tower=tower,
        st=not tower and draw(st.booleans()),
        dim=draw(st.none() | st.integers(1, 4096)),
        revision=draw(st.none() | st.from_regex(r"[a-z0-9_][a-z0-9_./-]{0,12}", fullmatch=True)),
        size=size,
        query_size=None if size is None else draw(st.none() | sides),
        linear=draw(st.none() | awkward),
        mix=draw(st.none() | st.sampled_from(["0.3", "mmeb", "1"])),
    )


@given(encoder_names())
def test_a_printed_name_parses_back(name: EncoderName) -> None:
    assert parse(str(name)) == name
    assert str(parse(str(name))) == str(name)


@pytest.mark.parametrize(
    "text",
    [
        "tiny-clip",
        "siglip2-so400m@384",
        "clip-l@336/512",
        "pe-l@512+linear:/data/ilias@2024.pt",
        "tower:tiny-vl",
        "clip-l@336+mix:mmeb+linear:a.npz",
        "tower:org/name#v1.0@336",
        "org/name#refs/pr/8",
        "./mine/v1+v2/model",
        "/models/größe 2/語\n",
        *names("encoder"),
    ],
)
def test_names_people_write_print_as_themselves(text: str) -> None:
    assert str(parse(text)) == text


def test_each_part_is_found() -> None:
    assert parse("tower:org/name#v1@336/512+linear:a+linear:b") == EncoderName(
        "org/name", tower=True, revision="v1", size=336, query_size=512, linear="a+linear:b"
    )
    assert parse("/models/a%40384@336") == EncoderName("/models/a@384", size=336)


@pytest.mark.parametrize(
    "text", ["", "@384", "tower:", "a@15", "a@4097", "a@99999999999", "a+linear:", "#v1", "a@64/1"]
)
def test_broken_names_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_size_picks_the_checkpoint_made_for_it_else_the_next_smaller() -> None:
    entry = next(entry for entry in ENTRIES if entry.name == "siglip2-l")
    made = {side: _made_for(entry, side).rpartition("-")[2] for side in (None, 200, 256, 300, 384, 500, 512, 768)}
    assert made == {None: "384", 200: "256", 256: "256", 300: "256", 384: "384", 500: "384", 512: "512", 768: "512"}


def test_the_catalogue_is_sound() -> None:
    short = [entry.name for entry in ENTRIES]
    assert len(short) == len(set(short))
    assert {"tiny-clip", "siglip2-so400m", "dinov3-l", "pe-l"} <= set(names("encoder"))
    assert {"tiny-vl", "qwen2.5-vl-7b"} <= set(names("mllm"))
    assert text_encoders()[0] == "tiny-clip" and "dinov3-l" not in text_encoders()
    for entry in ENTRIES:
        assert entry.dim % 8 == 0, "the table stores vectors in multiples of 8"
        assert all(hub.count("/") == 1 for hub in entry.hub.values())
        assert entry.bundled == entry.name.startswith("tiny-")
