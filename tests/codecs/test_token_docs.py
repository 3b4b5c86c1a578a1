"""docs/reference/tokens.md says what the code does: its table of bytes, its names of codecs, its header."""

import re
from pathlib import Path

from looktwice.codecs import parse_codec, record_format
from looktwice.types import Block

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "tokens.md").read_text(encoding="utf-8")
SHAPES = ((27, 3584, 0), (20, 3584, 0), (16, 2048, 3), (8, 576, 0))


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_table_of_bytes() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", section("Bytes per image"), re.MULTILINE)
    assert len(rows) > 10
    for spec, cells in rows:
        codec = parse_codec(spec)
        sizes = [codec.image_bytes((Block("global", side, side),), dim, levels) for side, dim, levels in SHAPES]
        assert [f"{size / 1000:,.1f}" for size in sizes] == cells.split(" | "), spec


def test_codecs_that_are_named_exist() -> None:
    names = re.findall(r"`((?:o?pq|pool|sample|group|cluster)[\w:+]*\d[\w:+]*)`", TEXT)
    assert len(names) > 30
    for name in names:
        assert str(parse_codec(name)) == name


def test_the_header_is_as_long_as_it_says() -> None:
    rows = re.findall(r"^\| (\d+) \| ", section("The bytes"), re.MULTILINE)
    assert int(rows[-1]) == record_format.HEADER.size
