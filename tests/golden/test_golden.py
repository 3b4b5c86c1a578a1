"""Answers that may not change by accident, and a table of the first on-disk format that must stay readable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import settings
from format_1 import digest

from looktwice.codecs import layout_from_json
from looktwice.score import load_scorer
from looktwice.store import Table
from looktwice.token_index.sets import open_set

GOLDEN = json.loads(settings.ANSWERS.read_text())
TABLE = Path(__file__).parent / "format-1"


@pytest.fixture(scope="module", autouse=True)
def pillow() -> Iterator[None]:
    with settings.pillow():
        yield


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return settings.make_table(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", settings.SETTINGS)
def test_hits_order_p_and_manifest_are_those_written_down(table: Table, name: str) -> None:
    found = [json.loads(json.dumps(settings.record(answer))) for answer in settings.answers(table, name)]
    assert [[hit[0] for hit in one["hits"]] for one in found] == [
        [hit[0] for hit in one["hits"]] for one in GOLDEN[name]
    ]
    assert numbers(found) == pytest.approx(numbers(GOLDEN[name]), abs=2e-5)
    assert words(found) == words(GOLDEN[name])


def test_every_setting_does_what_it_is_named_for() -> None:
    counts = {name: [one["manifest"]["candidates"] for one in GOLDEN[name]] for name in settings.SETTINGS}
    assert {one["requested"] for one in counts["cascade"]} == {16}, "12 roughly, 4 once more"
    assert any(one["requested"] < 12 for one in counts["early stop"])
    assert any(one["asked_again"] for one in counts["ties by question"])


def test_a_table_of_format_1_opens_with_all_it_holds(tmp_path: Path) -> None:
    """Made by `python tests/golden/format_1.py` before anything about tables was changed."""
    shutil.copytree(TABLE, tmp_path / "t.lt")
    table, about = Table.open(tmp_path / "t.lt"), json.loads((TABLE.parent / "format-1.json").read_text())
    assert json.loads((TABLE / "manifest.json").read_text())["format"] == 1
    assert sorted(row["id"] for row in table.rows()) == about["ids"] and table.manifest.dtypes == ()
    rows = table.get(about["ids"])
    assert digest(row.vector.astype("<f2").tobytes() for row in rows) == about["vectors"]
    assert [[entry.uri, entry.stage, entry.reason] for entry in table.ledger] == about["ledger"]
    for entry in table.manifest.tokens:
        codes = table.read_codes(about["ids"], entry["tokens_key"])
        assert digest(row.codes for row in codes if row) == about["codes"][entry["codec"]]
    now = load_scorer("tiny-vl", **settings.PLACE).tokens_info()
    kept = open_set(table, replace(now, revision=table.manifest.tokens[0]["revision"]), "pq8")
    first = table.read_codes(about["ids"][:1], kept.key)[0]
    assert first is not None
    tokens = kept.codec.decode(first.codes, layout_from_json(first.layout))
    assert float(tokens.features.float().std()) == pytest.approx(about["std"], rel=1e-3)
    assert [c.id for c in table.search(rows[0].vector, 3)] == about["nearest"]


def numbers(value: Any) -> list[float]:
    """All numbers with a fraction, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) else []


def words(value: Any) -> Any:
    """The same with every such number replaced by one word."""
    if isinstance(value, dict):
        return {key: words(one) for key, one in value.items()}
    if isinstance(value, list):
        return [words(one) for one in value]
    return "number" if isinstance(value, float) else value
