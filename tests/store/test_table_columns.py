"""Columns that are added to a table with rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import UsageError
from looktwice.store import Table
from looktwice.store.schema import column_values, unfit


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table.create(tmp_path / "t.lt", ENCODER)
    values: list[Any] = [2020, "2021", 2022.5, None, 2**70, True, [1], 7]
    made.add([row(str(n), metadata={"year": value}) for n, value in enumerate(values)])
    made.add([row("without", [0, 1, 0, 0, 0, 0, 0, 0])])
    return made


def test_a_column_is_filled_from_stored_metadata_and_misfits_are_counted(table: Table) -> None:
    before = {row.id: (row.metadata, row.vector.tobytes()) for row in table.get(sorted(table.hashes()))}
    assert table.add_columns({"year": int}) == {"year": 5}
    assert table.columns == {"year": int}
    assert sorted(one["id"] for one in table.rows(where="year >= 0")) == ["0", "7"]
    assert {row.id: (row.metadata, row.vector.tobytes()) for row in table.get(sorted(table.hashes()))} == before
    again = Table.open(table.path)
    assert again.count({"year": 2020}) == 1 and again.columns == {"year": int}
    again.add([row("new", metadata={"year": 1999})])
    assert again.count({"year": {"<": 2000}}) == 2
    assert [c.id for c in again.search([0, 1, 0, 0, 0, 0, 0, 0], 1)] == ["without"]


def test_a_column_that_another_process_has_added_is_filled_by_add(table: Table) -> None:
    Table.open(table.path).add_columns({"year": int})
    table.add([row("new", metadata={"year": 1999})])
    assert table.columns == {"year": int} and table.count({"year": 1999}) == 1


def test_a_column_added_twice_fills_its_gaps_and_another_type_is_refused(table: Table) -> None:
    table._items.add_columns(
        [__import__("pyarrow").field("year", __import__("pyarrow").int64())]
    )  # killed before filling
    table = Table.open(table.path)
    assert table.count("year IS NULL") == 9
    assert table.add_columns({"year": int}) == {"year": 5} == table.add_columns({"year": int})
    assert table.count({"year": 7}) == 1
    versions = len(table._items.list_versions())
    table.add_columns({"year": int})
    assert len(table._items.list_versions()) == versions, "nothing to fill is nothing to write"
    for columns, why in (
        ({"year": float}, "exists already, with the type int"),
        ({"Year": int}, "already exists"),
        ({"id": str}, "already exists"),
        ({"a b": int}, "not a valid column name"),
    ):
        with pytest.raises(UsageError, match=why):
            table.add_columns(columns)


def test_several_columns_at_once_and_many_rows(tmp_path: Path) -> None:
    made = Table.create(tmp_path / "t.lt", ENCODER, {"shop": str})
    made.add(random_rows(5000))
    assert made.add_columns({"year": float, "shop": str}) == {"year": 0, "shop": 0}
    assert made.count("year < 100") == 100
    vector = np.random.default_rng(1).normal(size=8)
    assert len(made.search(vector, 10, {"year": {"<": 7}})) == 7


PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists)


@given(PLAIN, st.sampled_from([int, float, str, bool]))
def test_a_value_fits_or_is_counted_and_never_stops_anything(value: Any, kind: type) -> None:
    (found,) = column_values({"x": value}, {"x": kind}).values()
    assert (found is None) == (value is None or unfit({"x": value}, {"x": kind}) == ["x"])
    if found is not None:
        assert found == value and type(found) is kind
    json.dumps(found)
