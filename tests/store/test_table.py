"""Adding, reading, deleting: what goes in comes out, whatever its id looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import UnknownName, UsageError
from looktwice.store import LedgerEntry, Row, Table, TokenRow, parse_columns
from looktwice.types import EncoderInfo

ODD_IDS = [
    "it's",
    'say "x"',
    "a\nb\r\n",
    "back\\slash\\'",
    "日本 語/ü.png",
    "%_[]",
    "-- ; DROP TABLE items",
    "nul\0",
    "🦉",
    " ",
]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "t.lt", ENCODER, {"year": int, "shop": str, "price": float, "new": bool})


def same(one: Row, other: Row) -> bool:
    unit = [r.vector / np.linalg.norm(r.vector) for r in (one, other)]
    names = ("id", "uri", "sha256", "width", "height", "text", "metadata", "root")
    return np.allclose(*unit, atol=1e-3) and all(getattr(one, name) == getattr(other, name) for name in names)


def test_rows_come_back_in_the_order_asked_for(table: Table) -> None:
    rows = random_rows(50)
    rows[3] = row("00003", rows[3].vector, text="two\nlines 'é'", metadata={"a": [1, {"b": None}], "ü": "'"}, root="r")
    table.add(rows)
    wanted = ["00030", "00003", "00049", "00003"]
    found = table.get(wanted)
    assert [one.id for one in found] == wanted
    assert all(same(one, rows[int(one.id)]) for one in found)
    assert len(table) == 50
    assert table.hashes() == {one.id: one.sha256 for one in rows}
    assert table.get([]) == []


@pytest.mark.parametrize("odd", ODD_IDS)
def test_odd_ids(table: Table, odd: str) -> None:
    table.add([row(odd, metadata={"shop": odd}), row("other", metadata={"shop": "x"}), row(odd + "'")])
    assert table.get([odd])[0].id == odd
    assert [hit.id for hit in table.search(np.eye(8)[0], 9, "shop = '" + odd.replace("'", "''") + "'")] == [odd]
    table.add([row(odd, text="again")])
    assert (len(table), table.get([odd])[0].text) == (3, "again")
    assert table.delete([odd]) == 1
    assert sorted(table.hashes()) == sorted(["other", odd + "'"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=1, max_size=5))
def test_any_ids(table: Table, ids: list[str]) -> None:
    table.add([row(one, text=one) for one in ids])
    assert [one.text for one in table.get(ids)] == ids
    assert table.delete(ids) == len(ids)
    assert len(table) == 0


def test_same_id_is_replaced_not_doubled(table: Table) -> None:
    table.add(random_rows(100))
    table.add(random_rows(60, start=50, seed=1))
    assert len(table) == 110
    assert len(set(table.hashes())) == 110


@pytest.mark.parametrize(
    "bad, word",
    [
        (row("a", [0] * 8), "zero or not finite"),
        (row("a", [1e-9] * 8), "zero or not finite"),  # zero once it is float16
        (row("a", [float("nan")] * 8), "zero or not finite"),
        (row("a", [float("inf")] + [0] * 7), "zero or not finite"),
        (row("a", [1.0] * 7), "shape"),
        (row(""), "is not a valid id"),
        (row("half\ud800"), "is not a valid id"),
        (row("twice"), "occurs twice"),
        (row("a", metadata={"x": object()}), "plain JSON"),
        (row("a", metadata={"x": float("nan")}), "plain JSON"),
        (row("a", metadata={"x": "\ud800"}), "plain JSON"),
    ],
)
def test_bad_rows_are_refused_with_their_whole_batch(table: Table, bad: Row, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        table.add([row("fine"), row("twice"), bad])
    assert len(table) == 0


def test_columns(table: Table, tmp_path: Path) -> None:
    table.add(
        [
            row("a", metadata={"year": 1999, "shop": "O'Neil", "price": 3, "new": True, "more": 1}),
            row("b", metadata={"year": 2021, "price": 2.5, "new": False}),
            row("c", metadata={"shop": None}),
        ]
    )
    cases = {
        "year > 2000": "b",
        "year <= 1999 AND new": "a",
        "shop = 'O''Neil'": "a",
        "price = 3.0": "a",
        "NOT new": "b",
        "year IS NULL": "c",
        "metadata LIKE '%more%'": "a",
        "id IN ('a', 'c')": "ac",
        "shop = 'a) -- /* ; ''b' OR year = 1999": "a",
        "`year` > 2000 OR \"shop\" = 'O''Neil'": "ab",
        "(year IN (-1, 2021) AND id <> '(')": "b",
        "array_has([1999, 2], year)": "a",
        "year::double / 2 > 1000.5e0 AND id || 'x' = 'bx'": "b",
        "year > 2000 OR true": "abc",
        "width = 4 and height = 3": "abc",
    }
    for where, ids in cases.items():
        assert sorted(hit.id for hit in table.search(np.eye(8)[0], 9, where)) == list(ids), where
        assert table.count(where) == len(ids)
        assert sorted(one["id"] for one in table.rows(where=where)) == list(ids)
    assert Table.open(table.path).columns == table.columns == {"year": int, "shop": str, "price": float, "new": bool}


@pytest.mark.parametrize(
    "where", ["year >", "year > 'x'", "nosuch(year) > 1", "year", "", "  ", "year > 1; DROP TABLE items", "'"]
)
def test_bad_filters_name_the_columns(table: Table, where: str) -> None:
    table.add([row("a", metadata={"year": 1})])
    for use in (
        lambda: table.search(np.eye(8)[0], 3, where),
        lambda: table.search_many(np.eye(8), 3, where),
        lambda: table.count(where),
        lambda: table.delete(where=where),
    ):
        with pytest.raises(UsageError) as caught:
            use()
        assert "\n" not in str(caught.value) and ".rs:" not in str(caught.value)
        assert where.strip() == "" or "year" in str(caught.value)
    assert len(table) == 1


def test_unknown_column_suggests_the_right_one(table: Table) -> None:
    with pytest.raises(UnknownName, match="Unknown column 'yaer'; did you mean year"):
        table.search(np.eye(8)[0], 3, "yaer > 3")


def commits(table: Table) -> int:
    """How many versions the rows of a table have."""
    return len(list((table.path / "items.lance" / "_versions").glob("*.manifest")))


@pytest.mark.parametrize("by_filter", [False, True])
def test_a_large_delete_is_one_commit_and_one_that_was_interrupted_is_finished(
    tmp_path: Path, by_filter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER, {"year": int})
    table.add(random_rows(5001))
    table.ledger.put([LedgerEntry("file:///pictures/5", "decode", "corrupt")])
    table.put_codes([TokenRow(f"{n:05}", f"{n:064x}", "k", "[]", b"c", 0) for n in range(0, 5000, 100)])
    before = commits(table)
    ask = {"where": "year < 5000"} if by_filter else {"ids": [f"{n:05}" for n in range(5000)]}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(table._items), "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            table.delete(**ask)
    assert len(table) == 5001
    assert table.delete(**ask) == 5000
    assert len(table) == 1 and commits(table) == before + 1
    assert len(table.ledger) == 0 and table._tokens.count_rows() == 0


@pytest.mark.parametrize(
    "columns", [{"id": int}, {"Vector": str}, {"a b": int}, {"": int}, {"x": list}, {"x": int, "X": str}]
)
def test_columns_that_cannot_be(tmp_path: Path, columns: dict[str, type]) -> None:
    with pytest.raises(UsageError):
        Table.create(tmp_path / "t.lt", ENCODER, columns)
    assert not (tmp_path / "t.lt").exists()


def test_column_declarations() -> None:
    assert parse_columns(["a:int", "b", "c:bool", "d:float"]) == {"a": int, "b": str, "c": bool, "d": float}
    with pytest.raises(UnknownName, match="did you mean int"):
        parse_columns(["a:imt"])
    with pytest.raises(UsageError):
        parse_columns(["a-b:int"])


def test_delete(table: Table) -> None:
    table.add(random_rows(20))
    table.put_codes([TokenRow("00003", f"{3:064x}", "k", "[]", b"x", 0)])
    table.ledger.put([LedgerEntry(table.get(["00003"])[0].uri, "tokens", "odd")])
    assert table.delete(["00003", "nobody", "00003"]) == 1
    assert table.read_codes(["00003"], "k") == [None]
    assert len(table.ledger) == 0
    assert table.delete(where="year >= 10") == 10
    assert sorted(table.hashes()) == [f"{n:05}" for n in range(10) if n != 3]
    assert table.delete([]) == table.delete(where="year > 99") == 0
    for wrong in ({}, {"ids": ["a"], "where": "true"}):
        with pytest.raises(UsageError):
            table.delete(**wrong)


def test_unknown_id(table: Table) -> None:
    table.add([row("photo-1.jpg")])
    with pytest.raises(UnknownName, match=r"did you mean photo-1\.jpg"):
        table.get(["photo-1.jpg", "photo-2.jpg"])


def test_ids_with_half_characters_are_unknown(table: Table) -> None:
    table.add([row("a")])
    table.put_codes([TokenRow("a", "0", "k", "[]", b"", 0)])
    assert table.lookup(["caf\udce9", "a"], ["id"]) == [{"id": "a"}]
    assert [found is None for found in table.read_codes(["caf\udce9", "a"], "k")] == [True, False]
    assert (table.delete(["caf\udce9"]), table.ledger.clear(["caf\udce9"])) == (0, 0)
    with pytest.raises(UnknownName, match="item"):
        table.get(["a", "caf\udce9"])


def test_lookups_by_hash_and_id(table: Table) -> None:
    table.add([row("a", sha256="0" * 64), row("b", sha256="0" * 64), row("c", sha256="1" * 64)])
    assert [one.sha256 for one in table.find_images(["0" * 64, "2" * 64])] == ["0" * 64], "one of two will do"
    table.add([row("d", sha256="0" * 64, text="x")])
    assert sorted(one.text or "" for one in table.find_images(["0" * 64, "2" * 64])) == ["", "x"]
    with pytest.warns(DeprecationWarning, match="find_images"):
        assert len(table.find_pictures(["0" * 64, "2" * 64])) == 2
    assert table.lookup(["c", "nobody"], ["id", "sha256"]) == [{"id": "c", "sha256": "1" * 64}]
    assert table.lookup([], ["id"]) == []


@pytest.mark.parametrize("dim", [1, 7, 8, 12, 513])
def test_any_dimension(tmp_path: Path, dim: int) -> None:
    """Padding to a multiple of 8 is seen neither in vectors nor in scores."""
    table = Table.create(tmp_path / "t.lt", EncoderInfo("toy", "1", "none", dim))
    rows = random_rows(30, dim)
    table.add(rows)
    assert table.get(["00000"])[0].vector.shape == (dim,)
    query = np.random.default_rng(9).normal(size=dim)
    scores = {one.id: float(one.vector @ query / np.linalg.norm(one.vector) / np.linalg.norm(query)) for one in rows}
    for hit in table.search(query, 30):
        assert hit.coarse == pytest.approx(scores[hit.id], abs=2e-3)


def test_large_batches_and_many_ids(table: Table) -> None:
    table.add(random_rows(5000))
    ids = [f"{n:05}" for n in range(4999, -1, -1)]
    assert [one.id for one in table.get(ids)] == ids
    assert table.delete(ids[:4500]) == 4500
    assert len(table) == 500
