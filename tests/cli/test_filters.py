"""--where as SQL and as JSON, and what is said when nothing passes."""

from __future__ import annotations

from pathlib import Path

from conftest import Looktwice


def test_json_and_sql_find_the_same(looktwice: Looktwice, table: Path) -> None:
    sql = looktwice("search", table, "red", "--no-rerank", "--json", "--where", "id IN ('red-0.png', 'grey-1.png')")
    same = looktwice("search", table, "red", "--no-rerank", "--json", "--where", '{"id": ["red-0.png", "grey-1.png"]}')
    assert same.code == 0 and same.records == sql.records and len(same.records) == 2


def test_an_empty_result_says_why(looktwice: Looktwice, own_table: Path) -> None:
    done = looktwice("search", own_table, "red", "--no-rerank", "--where", '{"id": "reed", "width": {">": 1}}')
    assert done.code == 0 and '0 of 12 items pass: id = "reed".' in done.err
    done = looktwice("delete", own_table, "--where", "id = 'reed'", "--yes")
    assert "0 of 12 items pass: id = 'reed'." in done.err and "0 items deleted; 12 items left" in done.err


def test_json_that_is_none_is_a_sentence(looktwice: Looktwice, table: Path) -> None:
    for where, why in (('{"id": ', "is not valid JSON"), ('{"id": {"is": 1}}', "Unknown operator"), ("{}", "is empty")):
        done = looktwice("search", table, "red", "--where", where)
        assert done.code == 2 and why in done.err and done.out == ""
