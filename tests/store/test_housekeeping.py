"""Compacting, erasing for good, versions, sizes on disk and export."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import StoreError, UsageError
from looktwice.store import LedgerEntry, PreviewRow, Table, TokenRow, ann, maintenance
from looktwice.store.lance import upsert
from looktwice.store.schema import rows_to_arrow
from looktwice.types import EncoderInfo


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "t.lt", ENCODER, {"year": int})


def files_with(table: Table, needle: bytes) -> list[str]:
    return [str(path) for path in table.path.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.mark.parametrize("by_filter", [False, True])
def test_purge_erases_every_byte_of_a_deleted_row(
    table: Table, by_filter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of thousands: compaction alone would keep it."""
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000 if by_filter else 10_000)
    monkeypatch.setattr(ann, "SAMPLE", 5)
    secret = {"id": "SECRET-ID", "uri": "SECRET-URI", "text": "SECRET-TEXT", "sha256": "5EC8E7" * 10}
    vector = np.arange(1, 9) / 7
    table.add(random_rows(2000))
    table.add(
        [row(secret["id"], vector, secret["sha256"], uri=secret["uri"], text=secret["text"], metadata={"year": -5})]
    )
    table.put_codes([TokenRow(secret["id"], secret["sha256"], "k", "[]", b"SECRET-CODES", 0)])
    table.ledger.put([LedgerEntry(secret["uri"], "tokens", "odd", "SECRET-DETAIL")])
    table.build_index()
    stored = vector.astype(np.float16).tobytes()
    for needle in (b"SECRET-ID", b"SECRET-URI", b"SECRET-TEXT", b"SECRET-CODES", b"SECRET-DETAIL", b"5EC8E7", stored):
        assert files_with(table, needle), needle  # the test can fail
    table.delete(where="year = -5 AND id = 'SECRET-ID'") if by_filter else table.delete(["SECRET-ID"])
    table.compact()
    assert files_with(table, b"SECRET")
    table.compact(purge=True)
    for needle in (b"SECRET", b"5EC8E7", stored):
        assert files_with(table, needle) == [], needle
    assert len(table) == 2000
    assert table.manifest.index is None or table.manifest.index["rows"] == 2000
    again = Table.open(table.path)
    query = random_rows(8)[7].vector
    assert again.search(query, 5) == table.search(query, 5)
    assert again.search(query, 1)[0].id == "00007"


def test_purged_table_still_refuses_doubles(table: Table) -> None:
    table.add(random_rows(10))
    table.compact(purge=True)
    table.add(random_rows(10, seed=1))
    reopened = Table.open(table.path)
    reopened.add(random_rows(10, seed=2))
    assert len(reopened) == 10
    for handle, key in ((reopened._items, "id"), (reopened._tokens, "key"), (reopened._failures, "key")):
        field = handle.schema.field(key)
        assert not field.nullable and field.metadata  # the declared primary key is in the metadata


def test_compacting_changes_no_answer(table: Table) -> None:
    for part in range(12):
        table.add(random_rows(50, seed=part, start=50 * part))
    table.delete(where="year < 100")
    queries = np.random.default_rng(3).normal(size=(10, 8))
    before = table.search_many(queries, 20)
    table.compact()
    assert table.search_many(queries, 20) == before
    table.compact(purge=True)
    assert table.search_many(queries, 20) == before
    assert Table.open(table.path).search_many(queries, 20) == before


def test_tidy_waits_until_it_pays(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.store.maintenance.SMALL_FRAGMENTS", 3)
    data = table.path / "items.lance" / "data"
    for part in range(4):
        table.tidy()
        assert len(list(data.glob("*"))) == part
        table.add(random_rows(5, start=5 * part))
    table.tidy()
    assert len(table._items.list_versions()) > 5 and len(table) == 20
    assert table._items.stats()["fragment_stats"]["num_fragments"] == 1


def fragments(handle: Any) -> int:
    return int(handle.stats()["fragment_stats"]["num_fragments"])


def test_small_writes_tidy_up_by_themselves(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "SMALL_FRAGMENTS", 5)
    most = 0
    for part in range(30):
        table.add(random_rows(3, seed=part, start=3 * part))
        table.put_codes([TokenRow(f"{3 * part:05}", "0", "k", "[]", b"codes", 0)])
        most = max(most, fragments(table._items), fragments(table._tokens))
    assert most == 5 and len(table) == 90
    assert [one.id for one in table.get(["00089", "00000"])] == ["00089", "00000"]
    monkeypatch.setattr(maintenance, "SMALL_WRITE", 3)  # now these count as large
    for part in range(30, 38):
        table.add(random_rows(3, seed=part, start=3 * part))
    assert fragments(table._items) > 8


def test_a_failed_tidying_loses_nothing_and_is_said(
    table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maintenance, "SMALL_FRAGMENTS", 1)

    def full(handle: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maintenance, "tidy", full)
    for part in range(4):
        table.add(random_rows(3, start=3 * part))
    assert len(table) == 12 and "looktwice compact" in caplog.text


@pytest.mark.filterwarnings("ignore:optimize")  # of other processes' readers: there are none
def test_tidy_erases_old_versions_of_what_is_one_fragment(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    for again in range(40):
        table.ledger.put([LedgerEntry("u", "read", "missing", str(again))])
    before = table.location.size()
    table.tidy()
    assert table.location.size() == before, "younger than a week"
    monkeypatch.setattr(maintenance, "KEEP_VERSIONS", timedelta(0))
    table.tidy()
    assert len(table._failures.list_versions()) == 1 and table.location.size() < before / 4
    assert [entry.detail for entry in Table.open(table.path).ledger] == ["39"]


def test_info_is_content_with_every_whole_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is known by counting bytes: no way of writing may look like a loss."""
    monkeypatch.setattr(ann, "EXACT_ROWS", 100)
    monkeypatch.setattr(ann, "SAMPLE", 5)
    rows = random_rows(300)
    changes: list[Callable[[], object]] = [
        lambda: table.add(rows[:200]),
        lambda: table.add([*rows[150:], *rows[:10]]),
        table.build_index,
        lambda: table.delete(where="year < 120"),
        table.compact,
        lambda: table.add(random_rows(40, seed=1)),
        lambda: table.delete(where="year > 130"),
        lambda: table.compact(purge=True),
        lambda: table.delete(where="year >= 0"),
        table.compact,
        lambda: table.add(rows),
    ]
    for change in changes:
        change()
        for one in (table, Table.open(table.path)):
            info = one.info()
            assert sum(info["bytes"].values()) == 2 * info["bytes"]["total"]


def looked_up_by(handle: Any, column: str) -> bool:
    """Whether a look at one row goes through an index, as the database itself plans it."""
    return "ScalarIndexQuery" in str(handle.search().where(f"{column} IN ('00007', '00008|k')").explain_plan())


def test_large_tables_are_looked_up_through_an_index(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "EXACT_ROWS", 200)
    table.add(random_rows(150))
    codes = [TokenRow(f"{n:05}", f"{n:064x}", key, "[]", bytes([n]), 0) for n in range(150) for key in ("j", "k")]
    table.put_codes(codes[:150])
    table.build_index()
    assert not looked_up_by(table._items, "id") and not looked_up_by(table._tokens, "key"), "both are small"
    table.put_codes(codes[150:])
    table.build_keys()
    assert looked_up_by(table._tokens, "key") and not looked_up_by(table._items, "id"), "two sets of tokens are large"
    before = table._tokens.version
    table.build_keys()
    assert table._tokens.version == before, "an index that knows all rows stays"
    table.compact(purge=True)
    assert looked_up_by(table._tokens, "key"), "a purge builds it again"
    changed = [row(f"{n:05}", (1, *[0] * 7), "f" * 64) for n in (7, 9)]
    table.add([*changed, *random_rows(60, start=150)])
    assert [found is None for found in table.read_codes([f"{n:05}" for n in (6, 7, 8, 9)], "k")] == [False, True] * 2
    assert table.info()["tokens"] == 296, "tokens of other bytes went, of both sets, and no others"
    monkeypatch.setattr(ann, "SAMPLE", 5)
    table.build_index()
    assert looked_up_by(table._items, "id") and looked_up_by(table._items, "sha256")


def test_info_adds_up_to_the_files_on_disk(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ann, "EXACT_ROWS", 100)
    monkeypatch.setattr(ann, "SAMPLE", 5)
    table.add(random_rows(200))
    table.add(random_rows(200, seed=1))
    table.put_codes([TokenRow(f"{n:05}", "0", "k", "[]", bytes(500), 0) for n in range(50)])
    table.put_codebook(b"book")
    table.ledger.put([LedgerEntry("u", "read", "missing")])
    table.put_previews([PreviewRow("00001", "0", b"webp")])
    table.build_index()
    info = table.info()
    on_disk = sum(path.stat().st_size for path in table.path.rglob("*") if path.is_file())
    assert info["bytes"]["total"] == on_disk == sum(info["bytes"].values()) - on_disk
    assert all(size > 0 for size in info["bytes"].values())
    assert info["bytes"]["vectors"] == 200 * 8 * 2
    assert (info["items"], info["failed"], info["tokens"]) == (200, 1, 50)
    assert info["bytes_per_item"]["vectors"] == 16
    assert json.loads(json.dumps(info)) == info
    table.compact(purge=True)
    assert table.info()["bytes"]["versions"] < info["bytes"]["versions"]


def test_info_of_an_empty_table(table: Table) -> None:
    info = table.info()
    assert (info["items"], info["failed"], info["bytes"]["vectors"]) == (0, 0, 0)
    assert info["index"] == {"kind": "exact"}


def test_export(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", EncoderInfo("toy", "1", "none", 5), {"year": int})
    rows = random_rows(100, 5)
    rows[7] = row("it's\n7", rows[7].vector, text="x", metadata={"year": 1, "more": ["é"]})
    table.add(rows)
    path = table.export(tmp_path / "new" / "out")
    assert path == tmp_path / "new" / "out" / "items.parquet"
    found = pq.read_table(path)
    assert found.num_rows == 100
    by_id = {one["id"]: one for one in found.to_pylist()}
    assert json.loads(by_id["it's\n7"]["metadata"]) == {"year": 1, "more": ["é"]}
    assert (by_id["it's\n7"]["year"], by_id["it's\n7"]["text"]) == (1, "x")
    for one in table.get(sorted(by_id)):
        assert np.array_equal(np.array(by_id[one.id]["vector"], np.float32), one.vector)
    assert [entry.name for entry in path.parent.iterdir()] == ["items.parquet"]
    with pytest.raises(UsageError, match="already exists"):
        table.export(tmp_path / "new" / "out")


def test_an_export_that_fails_leaves_nothing_behind(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add(random_rows(10))
    with monkeypatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr(pq.ParquetWriter, "write_batch", lambda *_: (_ for _ in ()).throw(full))
        (tmp_path / "there").mkdir()
        for folder in (tmp_path / "new" / "out", tmp_path / "there"):
            with pytest.raises(StoreError, match=r"disk is full.* left .* unchanged"):
                table.export(folder)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["t.lt", "there"]
    assert list((tmp_path / "there").iterdir()) == []
    assert table.export(tmp_path / "new" / "out").exists()


def test_export_of_nothing(table: Table, tmp_path: Path) -> None:
    assert pq.read_table(table.export(tmp_path)).num_rows == 0


def test_one_text_is_no_list_of_ids(table: Table) -> None:
    table.add(random_rows(3))
    with pytest.raises(UsageError, match="must be a list"):
        table.delete("00001")
    assert len(table) == 3


def test_contents_depend_on_ids_bytes_and_texts_only(table: Table, tmp_path: Path) -> None:
    rows = random_rows(6)
    table.add(rows)
    other = Table.create(tmp_path / "o.lt", ENCODER, {"year": int})
    for one in reversed(rows):
        other.add([one])
    other.compact()
    assert table.contents() == other.contents()
    other.add([replace(rows[2], sha256="e" * 64)])
    assert table.contents() != other.contents()


def test_a_purge_keeps_what_another_writer_commits_meanwhile(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket nothing keeps writers apart: the lock of this folder is stepped around."""
    table.add(random_rows(20))
    other = Table.open(table.path)
    real = type(table._database).create_table

    def create_table(*arguments: object, **settings: object) -> object:
        data = rows_to_arrow([row("meanwhile")], other._schema, other.columns)
        upsert(other._items, "id", data)
        return real(*arguments, **settings)

    monkeypatch.setattr(type(table._database), "create_table", create_table)
    before = set(table.hashes())
    with pytest.raises(StoreError, match="was written to by another process, so it was not purged"):
        table.compact(purge=True)
    monkeypatch.undo()
    again = Table.open(table.path)
    assert set(again.hashes()) == before | {"meanwhile"}
    again.compact(purge=True)
    assert set(Table.open(table.path).hashes()) == before | {"meanwhile"}
