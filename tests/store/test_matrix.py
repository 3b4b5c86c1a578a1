"""The vectors of a version in memory: they follow commits, stay within bounds and never change an answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row

from looktwice.store import Table, matrix
from looktwice.store.matrix import MatrixCache, VectorMatrix
from looktwice.store.search import VectorSearch

QUERY = np.random.default_rng(3).normal(size=8)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table.create(tmp_path / "t.lt", ENCODER, {"year": int})
    made.add(random_rows(400))
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a matrix was read from disk."""
    made: list[int] = []
    read = VectorMatrix.read.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(VectorMatrix, "read", classmethod(lambda cls, *args: (made.append(1), read(cls, *args))[1]))
    return made


def on_disk(table: Table, *args: Any) -> Any:
    """The answer of LanceDB, without a matrix."""
    space = table._space()
    return space._one(QUERY / np.linalg.norm(QUERY), *args)


def test_one_matrix_serves_all_searches_of_a_version(table: Table, reads: list[int]) -> None:
    first = table.search(QUERY, 30)
    assert first == on_disk(table, 30, None) and len(reads) == 1
    for view in (table, table.snapshot(), table.snapshot()):
        assert view.search(QUERY, 30) == first
        assert view.search_many([QUERY] * 12, 30) == [first] * 12
    assert len(reads) == 1


def test_it_follows_every_commit_whoever_made_it(table: Table, reads: list[int]) -> None:
    table.search(QUERY, 3)
    old = table.snapshot()
    before = old.search(QUERY, 3)
    Table.open(table.path).add([row("by-another-process", QUERY)])
    assert table.snapshot().search(QUERY, 1)[0].id == "by-another-process"
    table.add([row("nearer", QUERY, metadata={"year": 1})])
    assert [hit.id for hit in table.search(QUERY, 2)] == ["by-another-process", "nearer"]
    table.delete(["by-another-process"])
    assert table.search(QUERY, 1)[0].id == "nearer"
    table.add([row("nearer", -QUERY)])
    assert table.search(QUERY, 1)[0].id not in ("nearer", "by-another-process")
    table.compact()
    assert table.search(QUERY, 400) == on_disk(table, 400, None)
    assert old.search(QUERY, 3) == before


@pytest.mark.parametrize("where", ["year < 9", "year % 2 = 0", "year >= 0", "year > 9999"])
def test_filters_choose_among_its_rows(table: Table, where: str) -> None:
    expected = [table.search(QUERY, 50, where)]  # a single filtered search asks LanceDB while nothing is in memory
    assert table._matrices.known(table._items.version) is None
    table.search(QUERY, 1)
    assert table._matrices.known(table._items.version) is not None
    assert [table.search(QUERY, 50, where)] == expected
    assert table.search_many([QUERY] * 9, 50, where) == expected * 9


def test_rows_are_looked_up_by_row_id(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["00007", "nobody", "00399", "00007", "\ud800"]
    plain = sorted(map(str, table.lookup(ids, ["id", "uri", "year"])))
    table.search(QUERY, 1)
    monkeypatch.setattr("looktwice.store.lookup.is_in", lambda *_: 1 / 0)
    assert sorted(map(str, table.lookup(ids, ["id", "uri", "year"]))) == plain and len(plain) == 2
    assert table.lookup(["nobody"], ["id"]) == table.lookup([], ["id"]) == []
    assert [one.id for one in table.get(["00399", "00007"])] == ["00399", "00007"]


def test_rows_are_found_while_another_thread_is_inside_a_write(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix in memory is of a version before the last step of the write, which has moved the handle on."""
    ids = [hit.id for hit in table.search(QUERY, 400)]
    found: list[Any] = []
    filtered: list[int] = []

    def look() -> None:
        table.search(QUERY, 1)  # reads the matrix
        found.append((len(table.lookup(ids, ["id"])), len(table.vectors(ids)), len(table.lookup(["new"], ["id"]))))
        filtered.append(len(table.search(QUERY, 400, "year >= 0")))

    def paused(items: Any, rows: int, check: Any) -> None:
        for step in (lambda: None, items.optimize):  # after the commit, and after the compaction
            step()
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    monkeypatch.setattr("looktwice.store.maintenance.tidy_after_write", paused)
    table.add([row("00007", -QUERY), row("new", QUERY)])
    assert found == [(400, 400, 1)] * 2
    assert filtered == [399] * 2  # 00007 has no year any more


def test_the_first_search_of_a_larger_table_reads_nothing_in_vain(
    table: Table, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "EAGER_ROWS", 399)
    first = table.search(QUERY, 9)
    assert not reads and table.snapshot().search(QUERY, 9) == first and len(reads) == 1
    table.add([row("new", QUERY)])
    assert table.search(QUERY, 1)[0].id == "new" and len(reads) == 1
    table.add([row("newer", QUERY)])
    assert table.search_many([QUERY, QUERY], 2)[1][0].id == "new" and len(reads) == 2


def test_a_table_that_is_too_large_is_searched_on_disk(
    table: Table, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = table.search_many([QUERY] * 9, 20)
    other = Table.open(table.path)
    monkeypatch.setattr(matrix, "MOST_BYTES", matrix.size_of(400, 8) - 1)
    assert other.search_many([QUERY] * 9, 20) == expected
    assert other.search(QUERY, 20) == expected[0] and len(reads) == 1


def test_versions_are_forgotten_when_they_do_not_fit_together(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "MOST_BYTES", matrix.size_of(410, 8))
    for number in range(4):
        table.add([row(f"new-{number}", QUERY)])
        table.search(QUERY, 1)
        assert len(table._matrices._made) == 1
    monkeypatch.setattr(matrix, "MOST_BYTES", 2**28)
    for number in range(9):
        table.add([row(f"newer-{number}", QUERY)])
        table.search(QUERY, 1)
    assert len(table._matrices._made) == matrix.MOST_VERSIONS


def test_a_write_while_it_is_read_is_noticed(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MatrixCache()
    read = VectorMatrix.read.__func__  # type: ignore[attr-defined]

    def interrupted(cls: type, handle: Any, dim: int) -> VectorMatrix:
        made = read(cls, handle, dim)
        table.add([row("late", QUERY)])
        return made

    monkeypatch.setattr(VectorMatrix, "read", classmethod(interrupted))
    handle = table._items
    found = VectorSearch(handle, table.path, 8, table.filters, None, cache).search([QUERY], 500)
    assert found[0] == on_disk(table, 500, None) or len(found[0]) == 400
    assert not cache._made or handle.version in cache._made


def test_threads_share_one_reading(table: Table, reads: list[int]) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(table.search(QUERY, 5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and answers == [answers[0]] * 8


def test_many_queries_are_scored_in_parts(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = np.random.default_rng(1).normal(size=(30, 8))
    whole = table.search_many(queries, 7)
    monkeypatch.setattr(matrix, "_SCORES", 401 * 4)
    assert table.search_many(queries, 7) == whole == [table.search(query, 7) for query in queries]
