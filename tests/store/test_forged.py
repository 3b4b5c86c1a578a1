"""What LanceDB lets anyone write into a table, other columns, gaps, texts that are not JSON, is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from store_helpers import ENCODER, random_rows, token_set

from looktwice.errors import Damaged, StoreError
from looktwice.store import LedgerEntry, Table, read_metadata

Edit = Callable[[Any], Any]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = Table.create(tmp_path / "t.lt", ENCODER, {"year": int})
    made.add(random_rows(3))
    made.ledger.put([LedgerEntry("file:///x", "read", "missing")])
    return tmp_path / "t.lt"


def forge(table: Path, name: str, edit: Edit) -> None:
    database = lancedb.connect(table)
    database.create_table(name, edit(database.open_table(name).to_arrow()), mode="overwrite", on_bad_vectors="null")


def with_column(name: str, values: Any) -> Edit:
    def edit(data: Any) -> Any:
        place = data.schema.get_field_index(name)
        return data.append_column(name, values) if place < 0 else data.set_column(place, name, values)

    return edit


@pytest.mark.parametrize(
    "name, edit",
    [
        ("items", with_column("id", pa.array([1, 2, 3]))),
        ("items", with_column("uri", pa.array([b"a", b"b", b"c"]))),
        ("items", with_column("vector", pa.array(["a", "b", "c"]))),
        ("items", with_column("tags", pa.array([["a"], [], None]))),
        ("items", with_column("blob", pa.array([b"a", b"b", b"c"]))),
        ("items", lambda data: data.drop_columns(["metadata"])),
        ("items", lambda data: data.drop_columns(["vector"])),
        ("ledger", lambda data: data.drop_columns(["reason"])),
        ("ledger", with_column("detail", pa.array([5]))),
        ("tokens", with_column("codes", pa.array([], pa.string()))),
    ],
)
def test_other_columns_are_refused(table: Path, name: str, edit: Edit) -> None:
    forge(table, name, edit)
    with pytest.raises(Damaged, match="is missing or of another type"):
        Table.open(table)


@pytest.mark.parametrize("column", ["uri", "root", "sha256", "width", "metadata"])
def test_gaps_are_refused_where_they_are_read(table: Path, column: str) -> None:
    forge(table, "items", lambda data: with_column(column, pa.nulls(3, data.schema.field(column).type))(data))
    opened = Table.open(table)
    for read in (
        lambda: list(opened.rows([column])),
        lambda: opened.lookup(["00000"], [column]),
        lambda: opened.page(0, 2, [column]),
        lambda: opened.get(["00000"]),
    ):
        with pytest.raises(Damaged, match=f"have no {column}"):
            read()


def test_a_missing_vector_shifts_no_other(table: Path) -> None:
    numbers = np.ones((3, 8), np.float16)
    numbers[1] = np.nan  # which LanceDB writes as no vector
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 8)
    forge(table, "items", with_column("vector", vectors))
    with pytest.raises(StoreError):
        Table.open(table).search(np.ones(8, np.float32), 2)
    with pytest.raises(Damaged, match="have no vector"):
        Table.open(table).get(["00001"])


@pytest.mark.parametrize(
    "text", ["[", "[]", "5", '{"a": NaN}', "[" * 10**5, '{"a":' * 300 + "1" + "}" * 300, '{"a": "\\ud800"}']
)
def test_metadata_that_is_no_object(table: Path, text: str) -> None:
    forge(table, "items", with_column("metadata", pa.array([text] * 3)))
    with pytest.raises(Damaged, match="metadata of a stored item"):
        Table.open(table).get(["00000"])
    with pytest.raises(Damaged, match="metadata of a stored item"):
        Table.open(table).add_columns({"shop": str})


def test_gaps_in_the_ledger_are_empty_texts(table: Path) -> None:
    forge(table, "ledger", with_column("stage", pa.array([None], pa.string())))
    assert [(entry.uri, entry.stage) for entry in Table.open(table).ledger] == [("file:///x", "")]


@pytest.mark.parametrize("value", [[1], "x", 5, True])
def test_statistics_of_rarity_of_another_kind(table: Path, value: object) -> None:
    values = json.loads((table / "manifest.json").read_text())
    (table / "manifest.json").write_text(json.dumps({**values, "tokens": [token_set(rarity=value)]}))
    with pytest.raises(Damaged, match="rarity"):
        Table.open(table)


def test_metadata_of_every_own_kind_comes_back() -> None:
    assert read_metadata('{"a":[1,2.5,"é",null,{"b":true}]}') == {"a": [1, 2.5, "é", None, {"b": True}]}
    assert read_metadata("{}") == {}
