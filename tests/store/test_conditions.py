"""Filters of plain data: what they find is what Python says of the values, whatever the values hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import ENCODER, row

from looktwice.errors import UnknownName, UsageError
from looktwice.store import Table, compile_where
from looktwice.store.filters import check

HOSTILE = [
    "",
    "'",
    "''",
    "it's",
    "x' OR true OR '",
    "\\",
    "\\'",
    '"',
    "`",
    "--",
    "/*",
    ";",
    "\n",
    "\0",
    "%",
    "_",
    "猫",
    "NULL",
]
NUMBERS = [-(2**63), -(2**63) + 1, -1, 0, 1, 2020, 2**31, 2**53 + 1, 2**63 - 1]
PRICES = [-1e300, -1e-300, -0.5, 0.0, 5e-324, 0.1, 19.5, 1e22, 1e300]
COLUMNS = {"Year": int, "order": str, "price": float, "ok": bool}
OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def stored() -> Iterator[dict[str, Any]]:
    """Metadata of rows: each column has every odd value, and sometimes none."""
    for number in range(36):
        found = {
            "Year": NUMBERS[number % len(NUMBERS)],
            "order": HOSTILE[number % len(HOSTILE)],
            "price": PRICES[number % len(PRICES)],
            "ok": number % 2 == 0,
        }
        yield {name: value for place, (name, value) in enumerate(found.items()) if (number + place) % 7}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    made = Table.create(tmp_path_factory.mktemp("conditions") / "t.lt", ENCODER, COLUMNS)
    made.add([row(f"{number:02}", metadata=metadata) for number, metadata in enumerate(stored())])
    return made


def ids(table: Table, where: Any) -> list[str]:
    return sorted(one["id"] for one in table.rows(where=where))


def expected(column: str, passes: Callable[[Any], bool]) -> list[str]:
    rows = enumerate(stored())
    return [f"{number:02}" for number, found in rows if column in found and passes(found[column])]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = {
    "Year": st.one_of(
        st.sampled_from(NUMBERS), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
    ),
    "order": st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8), st.text("'\\\"`;-%_ ORx", max_size=8)),
    "price": st.one_of(st.sampled_from(PRICES), st.integers(-5, 30), FLOATS),
}


@given(st.data(), st.sampled_from(sorted(VALUES)), st.sampled_from(sorted(OPERATIONS)))
def test_a_comparison_finds_what_python_finds(table: Table, data: Any, column: str, operator: str) -> None:
    value = data.draw(VALUES[column])
    compare = OPERATIONS[operator]
    if column == "price":
        value = float(value)
    wanted = expected(column, lambda stored: compare(stored, value))
    assert ids(table, {column: {operator: value}}) == wanted
    assert ids(table, json.dumps({column: {operator: value}})) == wanted


@given(st.data(), st.sampled_from(sorted(VALUES)), st.booleans())
def test_a_list_finds_one_of_its_values(table: Table, data: Any, column: str, none: bool) -> None:
    values = data.draw(st.lists(VALUES[column], max_size=5))
    wanted = expected(column, lambda stored: stored in values)
    missing = [f"{n:02}" for n, found in enumerate(stored()) if none and column not in found]
    assert ids(table, {column: [*values, *([None] if none else [])]}) == sorted(wanted + missing)


@given(st.dictionaries(st.sampled_from([*COLUMNS, "id", "text", "uri", "width"]), st.text(max_size=20), min_size=1))
def test_whatever_a_value_holds_the_filter_is_one_expression(where: dict[str, str]) -> None:
    kinds = dict.fromkeys(where, str)
    sql = compile_where(where, kinds)
    check(sql)
    assert sql.count(" AND `") >= len(where) - 1


def test_conditions_must_all_hold_and_bools_and_nulls_are_their_own(table: Table) -> None:
    assert ids(table, {"price": {">": 0, "<=": 19.5}, "ok": True}) == [
        name for name in expected("price", lambda p: 0 < p <= 19.5) if name in expected("ok", bool)
    ]
    without = [f"{n:02}" for n, found in enumerate(stored()) if "ok" not in found]
    assert ids(table, {"ok": None}) == without
    assert ids(table, {"ok": {"!=": None}}) == sorted(set(ids(table, None)) - set(without))
    assert ids(table, {"ok": {"!=": True}}) == expected("ok", lambda ok: not ok)
    assert ids(table, {"ok": []}) == [] == ids(table, {"ok": {"in": ()}})
    assert ids(table, {"Year": np.int64(2020)}) == ids(table, {"Year": 2020.0}) == expected("Year", lambda y: y == 2020)


def test_like_knows_two_signs_and_a_backslash(table: Table) -> None:
    assert ids(table, {"order": {"like": "x'%"}}) == expected("order", lambda text: text.startswith("x'"))
    assert ids(table, {"order": {"like": r"\%"}}) == expected("order", lambda text: text == "%")
    assert ids(table, {"order": {"like": "_"}}) == expected("order", lambda text: len(text) == 1)


def test_widths_beyond_32_bits_and_times(table: Table) -> None:
    everything = ids(table, None)
    assert ids(table, {"width": {"<": 2**40}}) == ids(table, {"width": {">": -(2**31)}}) == everything
    assert ids(table, {"width": {">": 2**31}}) == ids(table, {"width": [2**31, -(2**31), 5]}) == []
    for time in ("2024-01-01", "2024-01-01T10:00:00+02:00", datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)):
        assert ids(table, {"indexed_at": {">": time}}) == everything
    with pytest.raises(UsageError, match="not in the form 2024-06-01"):
        ids(table, {"indexed_at": {">": "yesterday"}})


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ({}, "is empty"),
        ({"Year": {}}, "on 'Year' is empty"),
        ({"Year": "2020"}, "holds int, not str"),
        ({"Year": True}, "holds int, not bool"),
        ({"Year": {"<": None}}, "holds int, not NoneType"),
        ({"Year": {"like": "2%"}}, "like works on text"),
        ({"Year": {"in": "2020"}}, "in takes a list"),
        ({"Year": [[1]]}, "holds int, not list"),
        ({"order": 5}, "holds str, not int"),
        ({"order": "\ud800"}, "valid UTF-8"),
        ({"ok": 1}, "holds bool, not int"),
        ({"ok": {"<": True}}, "only equal or not"),
        ({"price": math.nan}, "not a finite number"),
        ({"price": math.inf}, "not a finite number"),
        ({"price": 10**400}, "too large"),
        ({5: 5}, "columns by text"),
        ('{"price": NaN}', "not valid JSON"),
        ('{"price": 1e999}', "not a finite number"),
        ('{"price": ', "not valid JSON"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(table: Table, where: Any, why: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: table.delete(where=where),
        lambda: table.count(where),
        lambda: table.search(np.eye(8)[0], 3, where),
    ]
    for use in uses:
        with pytest.raises(UsageError, match=why):
            use()
    assert len(table) == 36


def test_unknown_columns_and_operators_are_named(table: Table) -> None:
    with pytest.raises(UnknownName, match=r"Unknown column 'prise'; did you mean price\?.* KEY:TYPE"):
        table.count({"prise": 5})
    with pytest.raises(UnknownName, match="Unknown column 'vector'"):
        table.count({"vector": 5})
    with pytest.raises(UnknownName, match="Unknown operator 'between'"):
        table.count({"price": {"between": [1, 2]}})
    with pytest.raises(UnknownName, match="Unknown column 'x` = 1"):
        table.count({"x` = 1 OR `id": "a"})


def test_a_dict_deletes_and_counts_like_sql(tmp_path: Path) -> None:
    made = Table.create(tmp_path / "t.lt", ENCODER, COLUMNS)
    made.add([row("a", metadata={"price": 5.0}), row("b", metadata={"price": 50.0}), row("c")])
    assert made.count({"price": {"<": 20}}) == made.count("price < 20") == 1
    assert made.delete(where={"price": {"<": 20}}) == 1
    assert sorted(made.hashes()) == ["b", "c"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"price": {"<": 20}}, ""),
        ({"price": {"<": -1}}, "0 of 3 items pass: price < -1."),
        ({"price": {"<": 20}, "order": "hat"}, '0 of 3 items pass: order = "hat".'),
        (
            {"price": {"<": 20}, "order": "shoe"},
            'No item passes all conditions together (price < 20: 1 item; order = "shoe": 1 item).',
        ),
        ("price < 20 AND \"order\" = 'hat'", "0 of 3 items pass: \"order\" = 'hat'."),
        ("(price < -1 OR price > 90) and ok", "0 of 3 items pass: (price < -1 OR price > 90); ok."),
        ("price < 5 OR price > 90", "0 of 3 items pass: price < 5 OR price > 90."),
        ("price BETWEEN 1 AND 2 AND ok", "0 of 3 items pass: price BETWEEN 1 AND 2 AND ok."),
        ('{"order": {"like": "h%"}}', '0 of 3 items pass: order like "h%".'),
    ],
)
def test_an_empty_result_says_which_condition_nothing_passes(tmp_path: Path, where: Any, said: str) -> None:
    made = Table.create(tmp_path / "t.lt", ENCODER, COLUMNS)
    made.add([row("a", metadata={"price": 5.0, "order": "ring"}), row("b", metadata={"price": 50.0, "order": "shoe"})])
    made.add([row("c")])
    assert made.why_empty(where) == said
