"""Search against a brute-force loop: exact, through the index, one by one and in bulk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import UsageError
from looktwice.store import Table, ann, exact, matrix
from looktwice.store.matrix import MatrixCache
from looktwice.store.search import STREAM_FROM, VectorSearch
from looktwice.types import Candidate, EncoderInfo

DIM = 32


@pytest.fixture(params=["memory", "disk"], autouse=True)
def vectors_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds for tables whose vectors fit into memory, and for those that LanceDB searches on disk."""
    if request.param == "disk":
        for name in ("get", "known"):
            monkeypatch.setattr(MatrixCache, name, lambda *_: None)


def brute_force(table: Table, query: np.ndarray, k: int, keep: object = lambda row: True) -> list[Candidate]:
    """What the docs promise, in plain Python: cosine with the stored vectors, ties by id."""
    rows = [one for one in table.get(sorted(table.hashes())) if keep(one)]
    unit = query / np.linalg.norm(query)
    exact = [one.vector.astype(float) @ unit / np.linalg.norm(one.vector.astype(float)) for one in rows]
    scores = [np.float32(round(score, 7)) for score in exact]
    ranked = sorted(zip((-score for score in scores), (one.id for one in rows), strict=True))[:k]
    return [Candidate(id_, float(-score)) for score, id_ in ranked]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    table = Table.create(
        tmp_path_factory.mktemp("search") / "t.lt", EncoderInfo("toy", "1", "none", DIM), {"year": int}
    )
    rows = random_rows(3000, DIM)
    for twin in range(100, 180):  # eighty pictures that are the same
        rows[twin] = row(f"{twin:05}", rows[100].vector, "f" * 64, metadata={"year": twin})
    table.add(rows[:1000])
    table.add(rows[1000:])
    return table


@pytest.fixture(scope="module")
def indexed(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Table:
    made = Table.create(tmp_path_factory.mktemp("ann") / "t.lt", table.manifest.encoder, {"year": int})
    made.add(table.get(sorted(table.hashes())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "EXACT_ROWS", 1000)
        info = made.build_index()
    assert (info.kind, info.rows, info.sample) == ("ivf_rq", 3000, 200)
    assert info.recall >= 0.99
    assert made.manifest.index == Table.open(made.path).manifest.index == info.as_mapping()
    return made


QUERIES = np.random.default_rng(5).normal(size=(40, DIM))


def test_exact_search_is_brute_force(table: Table) -> None:
    for query in QUERIES[:5]:
        assert table.search(query, 50) == brute_force(table, query, 50)


def test_bulk_is_one_by_one(table: Table) -> None:
    assert len(QUERIES) >= STREAM_FROM
    assert table.search_many(QUERIES, 30) == [table.search(query, 30) for query in QUERIES]
    assert table.search_many(QUERIES, 30, "year > 2900") == [
        table.search(query, 30, "year > 2900") for query in QUERIES
    ]
    assert table.search_many(QUERIES[:0], 30) == []


def test_filter_comes_first(table: Table) -> None:
    assert table.search(QUERIES[0], 9, "year < 5") == brute_force(
        table, QUERIES[0], 9, lambda r: r.metadata["year"] < 5
    )
    assert table.search(QUERIES[0], 9, "year > 9999") == []
    assert len(table.search(QUERIES[0], 5000)) == 3000


@pytest.mark.parametrize("k", [1, 3, 50, 81])
def test_ties_are_cut_by_id(table: Table, indexed: Table, k: int) -> None:
    twin = table.get(["00100"])[0].vector
    expected = [f"{n:05}" for n in range(100, 180)][:k]
    for one in (table, indexed):
        found = one.search(twin, k)
        assert [hit.id for hit in found][:80] == expected
        assert len({hit.coarse for hit in found[:80]}) == 1
        assert one.search_many(np.stack([twin] * STREAM_FROM), k) == [found] * STREAM_FROM


def test_index_finds_what_exact_search_finds(table: Table, indexed: Table) -> None:
    right = table.search_many(QUERIES, 100)
    found = indexed.search_many(QUERIES, 100)
    assert ann.recall(right, found) > 0.95
    exact = [{hit.id: hit.coarse for hit in hits} for hits in table.search_many(QUERIES, 3000)]
    for scores, hits in zip(exact, found, strict=True):  # whatever is found has its exact score
        assert all(scores[hit.id] == hit.coarse for hit in hits)
        assert hits == sorted(hits, key=lambda hit: (-hit.coarse, hit.id))


def test_index_under_a_selective_filter_returns_all_there_is(table: Table, indexed: Table) -> None:
    for where, count in [("year < 7", 7), ("year % 300 = 1", 10), ("year >= 2950", 50)]:
        assert len(indexed.search(QUERIES[0], 100, where)) == count
        assert indexed.search(QUERIES[1], 100, where) == table.search(QUERIES[1], 100, where)


def test_an_index_that_nobody_measured_is_not_used(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build that was interrupted, of a table that shrank since, of a version before the index."""
    made = Table.create(tmp_path / "t.lt", table.manifest.encoder, {"year": int})
    made.add(table.get(sorted(table.hashes())))
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    assert not made.index_is_due  # its vectors fit into memory
    monkeypatch.setattr(matrix, "MOST_BYTES", 3000 * 4 * DIM)
    with monkeypatch.context() as patch:
        patch.setattr(ann, "tune", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.build_index()
    assert made.index_is_due and made.manifest.index is None and vector_indices(made) == 1
    right = table.search_many(QUERIES[:5], 100)
    assert made.search_many(QUERIES[:5], 100) == right
    made.build_index()
    assert not made.index_is_due
    monkeypatch.setattr(ann, "EXACT_ROWS", 4000)
    assert (made.build_index().kind, vector_indices(made)) == ("exact", 0)
    assert made.search_many(QUERIES[:5], 100) == right


def test_an_index_below_the_floor_is_not_used(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a build, and after an update of its files."""
    made = Table.create(tmp_path / "t.lt", table.manifest.encoder, {"year": int})
    made.add(table.get(sorted(table.hashes())))
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    monkeypatch.setattr(matrix, "MOST_BYTES", 3000 * 4 * DIM)
    right = table.search_many(QUERIES[:5], 100)
    assert made.build_index().kind == "ivf_rq" and not caplog.records
    made.compact()
    assert made.manifest.index is not None and made.manifest.index["kind"] == "ivf_rq" and vector_indices(made) == 1
    real = ann.recall
    monkeypatch.setattr(ann, "recall", lambda truth, found: real(truth, [rows[:90] for rows in found]))
    made.compact()
    assert "found only 90.0 % of the nearest items, so search stays exact" in caplog.text
    assert (made.manifest.index["kind"], vector_indices(made)) == ("exact", 0)
    assert made.search_many(QUERIES[:5], 100) == right and Table.open(made.path).search(QUERIES[0], 100) == right[0]
    assert not made.index_is_due, "or each run would build it in vain"
    assert made.build_index().kind == "exact" and vector_indices(made) == 0


def vector_indices(table: Table) -> int:
    return [index.columns for index in table._items.list_indices()].count(["vector"])


def test_a_batch_through_the_index_is_one_by_one(indexed: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    propose = type(indexed._space())._propose
    monkeypatch.setattr(
        "looktwice.store.search.VectorSearch._propose", lambda self, *args: (calls.append(1), propose(self, *args))[1]
    )
    batch = indexed.search_many(QUERIES[:12], 30)
    assert len(calls) == 2  # all at once, and the one whose cut goes through the eighty twins again
    assert batch == [indexed.search(query, 30) for query in QUERIES[:12]] and len(calls) == 2 + 13
    where = "year < 7"
    assert indexed.search_many(QUERIES[:3], 100, where) == [indexed.search(q, 100, where) for q in QUERIES[:3]]
    twin = indexed.get(["00100"])[0].vector
    assert indexed.search_many([twin, *QUERIES[:2]], 3)[0] == indexed.search(twin, 3)


def test_rows_added_after_the_index_are_found(indexed: Table) -> None:
    query = QUERIES[-1]
    indexed.add([row("late", query, metadata={"year": -1})])
    try:
        assert indexed.search(query, 1) == [Candidate("late", 1.0)]
        indexed.compact()
        assert indexed.search(query, 1) == [Candidate("late", 1.0)]
    finally:
        indexed.delete(["late"])
    assert indexed.search(query, 1)[0].id != "late"


def test_rows_are_found_by_id_through_the_index(indexed: Table) -> None:
    assert [index.columns for index in indexed._items.list_indices()].count(["id"]) == 1
    odd = ["it's", "a\nb", "日本", "back\\slash", "%"]
    indexed.add([row(one, QUERIES[0]) for one in odd])
    ids = ["02999", *odd, "00000"]
    for _ in range(2):  # before and after the index knows them
        assert [one.id for one in indexed.get(ids)] == ids
        indexed.compact()
    assert indexed.delete(odd) == len(odd)
    assert indexed.lookup(odd, ["id"]) == []


def test_small_tables_stay_exact(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    assert table.build_index().kind == "exact"
    table.add(random_rows(10))
    info = table.build_index()
    assert (info.kind, info.rows, info.recall) == ("exact", 10, 1.0)
    assert table.manifest.index is None
    assert ann.EXACT_ROWS == 50_000  # what docs/reference/on-disk-format.md says


def test_effort_rises_until_recall_suffices(indexed: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "SAMPLE", 5)
    asked = []

    def poor(truth: object, found: object) -> float:
        asked.append(1)
        return 0.98 if len(asked) < 3 else 0.995

    monkeypatch.setattr(ann, "recall", poor)
    info = ann.tune(indexed._space(), 3000, 27)
    assert (info.nprobes, info.refine, info.recall) == (16, 10, 0.995)
    assert len(asked) == 4  # the last with fewer partitions
    monkeypatch.setattr(ann, "recall", lambda truth, found: 0.5)
    info = ann.tune(indexed._space(), 3000, 27)
    assert (info.nprobes, info.refine, info.recall) == (27, 100, 0.5)  # the most there is, and it says so


def test_few_partitions_are_searched_for_queries_like_the_rows_only(
    indexed: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = []
    bound = VectorSearch._most_probes
    propose = VectorSearch._propose

    def spied(self: VectorSearch, unit: object, wanted: int, where: object, everywhere: bool = False) -> object:
        most.append(0 if everywhere else bound(self, wanted, where))
        return propose(self, unit, wanted, where, everywhere)

    monkeypatch.setattr(VectorSearch, "_propose", spied)
    space = replace(indexed._space(), index={"nprobes": 2, "refine": 2, "nearest": 0.9})
    own = indexed.get(["00003"])[0].vector
    assert space.search([own], 5)[0][0].id == "00003" and most == [2]
    assert len(space.search([own], 5, "year < 7")[0]) == 5 and most == [2, 0]  # a filter
    strange = replace(space, index={**space.index, "nearest": 1.1})
    assert strange.search([own], 5) == indexed._space().stream(exact.units_of([own], DIM), 5)
    assert most == [2, 0, 2, 0]  # far from every row
    old = replace(space, index={"nprobes": 2, "refine": 2})
    assert old.search([own], 5) == strange.search([own], 5) and most[4] == 0  # an index of an earlier version


def test_recall_counts_ties_by_score() -> None:
    truth = [[Candidate("a", 0.9), Candidate("b", 0.5)]]
    assert ann.recall(truth, [[Candidate("a", 0.9), Candidate("c", 0.5)]]) == 1
    assert ann.recall(truth, [[Candidate("a", 0.9), Candidate("c", 0.4)]]) == 0.5
    assert ann.recall(truth, [[]]) == 0


def test_empty_table(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    assert table.search(np.eye(8)[0], 3) == []
    assert table.search_many(np.eye(8), 3) == [[]] * 8


@pytest.mark.parametrize(
    "query", [np.zeros(DIM), np.full(DIM, np.nan), np.full(DIM, np.inf), np.ones(DIM - 1), np.ones((2, DIM)), 3.0]
)
def test_queries_without_direction_are_refused(table: Table, query: object) -> None:
    with pytest.raises(UsageError):
        table.search(query, 3)


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(table: Table, k: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        table.search(np.ones(DIM), k)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_few_directions_and_many_ties(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Small whole-number vectors tie all the time: order and cut must still be those of brute force."""
    numbers = st.lists(st.integers(-1, 1), min_size=8, max_size=8).filter(any)
    vectors = data.draw(st.lists(numbers, min_size=1, max_size=40))
    k = data.draw(st.integers(1, 45))
    table = Table.create(tmp_path_factory.mktemp("ties") / "t.lt", ENCODER)
    table.add([row(f"{n * 7 % 41:02}-{n}", vector) for n, vector in enumerate(vectors)])
    queries = np.array(data.draw(st.lists(numbers, min_size=STREAM_FROM, max_size=STREAM_FROM)), float)
    expected = [brute_force(table, query, k) for query in queries]
    assert [table.search(query, k) for query in queries] == expected
    assert table.search_many(queries, k) == expected


def test_an_index_without_lances_own_package(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    monkeypatch.setattr(ann.segments, "has_lance", lambda: False)
    made = Table.create(tmp_path / "t.lt", EncoderInfo("toy", "1", "none", DIM))
    made.add(random_rows(1000, DIM))
    info = made.build_index()
    assert info.kind == "ivf_rq" and info.recall >= 0.99
    assert made.search(QUERIES[0], 20) == made._space().stream(exact.units_of(QUERIES[:1], DIM), 20)[0]
