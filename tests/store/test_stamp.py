"""A table that follows others opens the newest version only if there is one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from store_helpers import ENCODER, random_rows, row, token_set

from looktwice.store import LedgerEntry, Table, TokenRow, stamp
from looktwice.store.location import LocalFolder, locate


def aged(table: Table) -> None:
    """Let the last change be ten seconds ago."""
    then = time.time() - 10
    for folder in [*table.path.rglob("_versions"), table.path / "manifest.json"]:
        os.utime(folder, (then, then))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table.create(tmp_path / "t.lt", ENCODER)
    made.add(random_rows(20))
    aged(made)
    return made


def test_nothing_is_opened_while_nothing_changes(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.follow()
    opened: list[int] = []
    monkeypatch.setattr(Table, "_open_newest", lambda self: opened.append(1))
    table.follow()
    assert not opened
    (table.path / "manifest.json").touch()  # young: a second change could have the same time
    table.follow()
    table.follow()
    assert len(opened) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda other: other.add([row("new")]),
        lambda other: other.delete(["00003"]),
        lambda other: other.put_codes([TokenRow("00001", "0", "k", "[]", b"codes", 0)]),
        lambda other: other.ledger.put([LedgerEntry("u", "read", "missing")]),
        lambda other: other.note_tokens(token_set()),
        lambda other: other.compact(purge=True),
    ],
    ids=["add", "delete", "tokens", "ledger", "manifest", "purge"],
)
def test_every_change_of_another_process_is_seen(table: Table, change: object) -> None:
    table.follow()
    before = stamp.stamp_of(table.location)
    assert before is not None
    change(Table.open(table.path))  # type: ignore[operator]
    assert stamp.stamp_of(table.location) != before
    table.follow()
    other = Table.open(table.path)
    assert (len(table), len(table.ledger), table.manifest) == (len(other), len(other.ledger), other.manifest)
    assert table.tokens_version == other.tokens_version


def test_where_times_cannot_tell_the_newest_is_always_opened(table: Table, tmp_path: Path) -> None:
    assert stamp.stamp_of(LocalFolder(tmp_path / "missing")) is None


def test_a_table_in_a_bucket_is_asked_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 104.9, 105.0])
    monkeypatch.setattr(stamp.time, "monotonic", lambda: next(now))
    first, soon, later = (stamp.stamp_of(locate("s3://bucket/t.lt")) for _ in range(3))
    assert first == soon != later
