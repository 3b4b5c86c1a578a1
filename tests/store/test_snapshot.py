"""Snapshots: one version that never changes, read by many threads while another one writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row, token_set

from looktwice.errors import Locked, StoreError
from looktwice.store import LedgerEntry, Location, Snapshot, Table, TokenRow, ann, manifest
from looktwice.store.search import STREAM_FROM

QUERIES = np.random.default_rng(3).normal(size=(STREAM_FROM, 8))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table.create(tmp_path / "t.lt", ENCODER, {"year": int})
    made.add(random_rows(200))
    made.put_codes([codes(n) for n in range(50)])
    made.ledger.put([LedgerEntry("u", "read", "missing")])
    return made


def codes(number: int, data: bytes = b"old") -> TokenRow:
    return TokenRow(f"{number:05}", f"{number:064x}", "k", "[]", data, 0)


def everything(view: Snapshot) -> list[object]:
    """All that can be read, as one value."""
    rows = view.get(sorted(view.hashes()))
    return [
        len(view),
        view.count("year < 100"),
        view.search(QUERIES[0], 30, "year < 150"),
        view.search_many(QUERIES, 300),
        [(one.id, one.sha256, one.text, one.metadata, one.vector.tobytes()) for one in rows],
        view.contents(),
        view.lookup(["00007", "nobody"], ["id", "text"]),
        view.read_codes([f"{n:05}" for n in range(60)], "k"),
        sorted(map(sorted, view.pending_tokens("k"))),
        list(view.ledger),
        view.manifest,
    ]


def writes(table: Table) -> list[Callable[[], object]]:
    return [
        lambda: table.add(random_rows(120, seed=1, start=100)),
        lambda: table.delete(where="year < 20"),
        lambda: table.put_codes([codes(n, b"new") for n in range(30, 60)]),
        lambda: table.ledger.put([LedgerEntry("v", "read", "empty")]),
        lambda: table.ledger.clear(["u"]),
        lambda: table.note_run(["file:///new/"], "float32"),
        lambda: table.note_tokens(token_set(tokens_key="k")),
        table.compact,
        table.tidy,
    ]


def test_a_snapshot_never_changes(table: Table) -> None:
    held = table.snapshot()
    before = everything(held)
    for write in writes(table):
        write()
        assert everything(held) == before
    now = everything(table.snapshot())
    assert now == everything(Table.open(table.path).snapshot()) != before
    assert now[0] == len(table) == 200


def test_a_snapshot_is_of_the_newest_version_whoever_wrote_it(table: Table) -> None:
    other = Table.open(table.path)
    other.add([row("late")])
    other.note_run(["file:///new/"], None)
    assert len(table) == 200 and table.manifest.roots == ()
    view = table.snapshot()
    assert len(view) == 201 and view.manifest.roots == ("file:///new/",)
    assert len(table) == 200, "taking one moves nobody else on"


def test_a_snapshot_has_nothing_that_writes(table: Table) -> None:
    view = table.snapshot()
    for name in ("add", "delete", "compact", "tidy", "build_index", "put_codes", "note_run", "writer", "refresh"):
        assert hasattr(table, name) and not hasattr(view, name)
    assert not hasattr(view.ledger, "put") and not hasattr(view.ledger, "clear")


def test_threads_search_one_snapshot_while_another_writes(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.store.maintenance.SMALL_FRAGMENTS", 3)
    held = table.snapshot()
    before = everything(held)
    stop = threading.Event()

    def read() -> int:
        rounds = 0
        while not stop.is_set() or rounds == 0:
            assert everything(held) == before
            rounds += 1
        return rounds

    def follow() -> list[int]:
        """Snapshots taken meanwhile: each is whole, and rows only become more."""
        counts = []
        while not stop.is_set() or not counts:
            view = table.snapshot()
            counts.append(len(view))
            found = view.search_many(QUERIES, 10_000)
            assert {len(hits) for hits in found} == {len(view.hashes())} == {counts[-1]}
        return counts

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        follower = pool.submit(follow)
        for part in range(12):
            table.add(random_rows(10, seed=part, start=200 + 10 * part))
            table.compact() if part % 3 == 0 else table.tidy()
        stop.set()
        assert all(reader.result() >= 1 for reader in readers)
        counts = follower.result()
    assert counts == sorted(counts) and all(count % 10 == 0 for count in counts)
    assert len(table.snapshot()) == 320 and everything(held) == before


def test_a_table_that_threads_share_answers_while_one_of_them_writes(table: Table) -> None:
    def read() -> None:
        for _ in range(20):
            ids = [hit.id for hit in table.search(QUERIES[0], 10_000)]
            assert len(ids) == len(set(ids)) >= 200

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for part in range(6):
            table.add(random_rows(10, seed=part, start=200 + 10 * part))
        for reader in readers:
            reader.result()
    assert len(table) == 260


def test_of_threads_that_write_one_at_a_time_may(table: Table) -> None:
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with table.writer():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(Locked, match="Another thread is writing"):
        table.add([row("a")])
    threading.Timer(0.2, leave.set).start()
    with table.writer(wait=30):
        table.add([row("a")])
    thread.join()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: patient(table, n), range(12)))
    assert len(table) == len(table.hashes()) == 213


def patient(table: Table, number: int) -> None:
    with table.writer(wait=60):
        table.add([row(f"by thread {number}")])


def test_a_purge_ends_older_snapshots_with_a_sentence(table: Table) -> None:
    held = table.snapshot()
    table.delete(["00001"])
    table.compact(purge=True)
    with pytest.raises(StoreError, match="If another process has purged the table, just open it again"):
        held.hashes()
    assert len(table.snapshot().hashes()) == 199


def test_the_manifest_and_the_index_are_of_one_moment(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is replaced between its being read and the items being opened."""
    monkeypatch.setattr(ann, "EXACT_ROWS", 100)
    monkeypatch.setattr(ann, "SAMPLE", 5)
    writer, read, times = Table.open(table.path), manifest.Manifest.read, []

    def interrupted(place: Location) -> manifest.Manifest:
        found = read(place)
        times.append(1)
        if len(times) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(manifest.Manifest, "read", read)
                writer.build_index()
        return found

    monkeypatch.setattr(manifest.Manifest, "read", interrupted)
    view = table.snapshot()
    assert view.manifest.index is not None and len(times) == 4


def test_taking_a_snapshot_is_cheap(table: Table) -> None:
    table.snapshot()
    begun = time.perf_counter()
    for _ in range(20):
        table.snapshot()
    assert (time.perf_counter() - begun) / 20 < 0.1  # 2 ms where nothing else runs
