"""`looktwice models` lists what the options take: every name it prints is one that parses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Looktwice

from looktwice.codecs import parse_codec
from looktwice.encode import name as encoder_name
from looktwice.models.catalog import ENTRIES
from looktwice.rank.fusion_rule import Fusion
from looktwice.score.local.retrace import Retrace
from looktwice.score.prompting import built_in
from looktwice.score.readout import modes


def known(name: str) -> None:
    assert name in {entry.name for entry in ENTRIES}


@pytest.mark.parametrize(
    ("option", "read"),
    [
        ("mllm", known),
        ("encoder", encoder_name.parse),
        ("prompt", built_in.get),
        ("fusion", Fusion.parse),
        ("score-mode", modes.check),
        ("retrace", Retrace.parse),
        ("codec", parse_codec),
    ],
)
def test_every_name_listed_parses(looktwice: Looktwice, option: str, read: Callable[[str], object]) -> None:
    rows = looktwice("models", option, "--json").records
    assert rows and all(row["option"] == option and row["what"] for row in rows)
    names = [name for row in rows for name in row["name"].split(", ")]
    for name in names:
        if name != "FILE.toml":  # which is not there
            read(name)


def test_every_score_mode_is_listed(looktwice: Looktwice) -> None:
    rows = looktwice("models", "score-mode", "--json").records
    assert tuple(row["name"] for row in rows) == modes.MODES
