"""Tables of format 1: read at once, migrated by the first write, killed at any moment of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row

from looktwice import sources
from looktwice.store import LedgerEntry, Table, TokenRow
from looktwice.store.migrate import item_id

TESTS = Path(__file__).parent.parent
GOLDEN = TESTS / "golden" / "format-1"
LIST = "file:///l.jsonl"
LINES = {  # uri of a line -> what format 1 said of it, and whose it is
    f"{LIST}#offset=0&size=9": ("line 1, id 'plain', /no.png: gone", "plain"),
    f"{LIST}#offset=9&size=9": ("""line 2, id "it's", /no.png: gone""", "it's"),
    f"{LIST}#offset=18&size=9": (r"""line 3, id 'say "it\'s"\n|': bad""", 'say "it\'s"\n|'),
    f"{LIST}#offset=27&size=9": ("line 4: it is not JSON", ""),
}
FILES = {  # uri below file:///f/, stage -> id
    ("file:///f/caf%E9%25.jpg", "decode"): "//caf%E9%25.jpg",
    ("file:///f/x/%C3%A9.png", "read"): "x/é.png",
    ("file:///f/shut", "scan"): "",
    ("file:///f/a.tar#offset=512&size=9", "decode"): "",
}


def as_format_1(table: Table) -> Table:
    """Take from a table what format 2 brought."""
    table._failures.drop_columns(["item_id"])
    values = json.loads((table.path / "manifest.json").read_text())
    del values["needs"]
    (table.path / "manifest.json").write_text(json.dumps({**values, "format": 1}))
    return Table.open(table.path)


@pytest.fixture
def old(tmp_path: Path) -> Table:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    table.add([*random_rows(20), row("plain", root=LIST), row("it's", root=LIST)])
    table.put_codes([TokenRow("00003", f"{3:064x}", "k", "[]", b"x", 0)])
    table.ledger.put([LedgerEntry(uri, "read", "missing", detail, LIST, "2024") for uri, (detail, _) in LINES.items()])
    table.ledger.put([LedgerEntry(uri, stage, "missing", "no", "file:///f/", "2024") for uri, stage in FILES])
    table.ledger.put([LedgerEntry("file:///f/b.png", "tokens:k", "grid", "odd", "", "2024")])
    return as_format_1(table)


def facts(table: Table) -> list[object]:
    lines = [(entry.uri, entry.root, entry.stage, entry.reason, entry.detail, entry.at) for entry in table.ledger]
    return [table.contents(), table.search(np.ones(8), 30), table.read_codes(["00003"], "k"), lines]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_reading_an_old_table_writes_nothing(old: Table) -> None:
    before = files(old.path)
    table = Table.open(old.path)
    facts(table)
    assert table.info()["format"] == 1 and {entry.item_id for entry in table.ledger} == {""}
    assert files(old.path) == before


def test_the_first_write_migrates_with_one_sentence_and_loses_nothing(
    old: Table, caplog: pytest.LogCaptureFixture
) -> None:
    before = facts(old)
    with caplog.at_level(logging.WARNING):
        for root in ("file:///a/", "file:///b/"):
            old.note_run([root], None)
            Table.open(old.path).note_run([root], None)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{old.path} was migrated from on-disk format 1 to 2 with all its rows;")
    table = Table.open(old.path)
    assert facts(table) == facts(old) == before and table.info()["format"] == 2
    assert table.manifest.roots == ("file:///a/", "file:///b/")
    ids = {(entry.uri, entry.stage): entry.item_id for entry in table.ledger}
    assert ids == {
        **{(uri, "read"): name for uri, (_, name) in LINES.items()},
        **FILES,
        ("file:///f/b.png", "tokens:k"): "",
    }


def test_deleted_items_of_an_old_list_take_their_lines_along(old: Table) -> None:
    assert old.delete(["plain", "it's"]) == 2
    assert {entry.item_id for entry in old.ledger if entry.root == LIST} == {'say "it\'s"\n|', ""}
    old.compact(purge=True)
    assert not [name for name, data in files(old.path).items() if b"id 'plain'" in data]


def test_the_golden_table_migrates(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "t.lt")
    table = Table.open(tmp_path / "t.lt")
    before = table.contents(), table.info()["tokens"]
    table.compact()
    assert (table.contents(), table.info()["tokens"]) == before
    assert [(e.item_id, e.reason) for e in Table.open(table.path).ledger] == [("broken.jpg", "not-an-image")]


def test_a_line_without_an_id_in_its_detail_has_none() -> None:
    for detail in ("", "line 3", "line x, id 'a': b", "id 'a': b", "line 3, id 'a"):
        assert item_id({"root": LIST, "uri": LIST, "stage": "read", "detail": detail}) is None
    nothing = {"root": None, "uri": None, "stage": None, "detail": None}
    assert item_id(nothing) is None  # type: ignore[arg-type]


def test_ids_of_files_are_those_that_a_scan_gives(tmp_path: Path) -> None:
    for name in (b"a#b?.png", "日本 %41.png".encode(), b"caf\xe9.png"):
        (tmp_path / "f" / "x").mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(bytes(tmp_path / "f" / "x") + b"/" + name)).write_bytes(b"")
    found = [one for one in sources.scan([tmp_path / "f"]) if isinstance(one, sources.Source)]
    assert len(found) == 3
    for one in found:
        assert item_id({"root": one.root, "uri": one.uri, "stage": "decode", "detail": "empty"}) == one.id


# A process kills itself at the moment that is named; what is patched does nothing else.
KILL = """
import os, signal, sys
import numpy as np
from looktwice.store import Manifest, Table, migrate
from store_helpers import row
path, moment = sys.argv[1:]
def end():
    os.kill(os.getpid(), signal.SIGKILL)
def around(holder, name):
    real = getattr(holder, name)
    def patched(*arguments):
        if moment == f"before {name}": end()
        made = real(*arguments)
        if moment == f"after {name}": end()
        return made
    setattr(holder, name, patched)
around(migrate, "add_column")
around(migrate, "fill_ids")
around(Manifest, "update")
if moment == "before rename":
    from pathlib import Path
    Path.replace = lambda *_: end()
Table.open(path).add([row("new")])
end()
"""
MOMENTS = [f"{when} {step}" for step in ("add_column", "fill_ids", "update") for when in ("before", "after")]


@pytest.mark.parametrize("moment", [*MOMENTS, "before rename", "after all"])
def test_killed_while_migrating(old: Table, moment: str) -> None:
    before = facts(old)
    paths = os.pathsep.join([str(TESTS / "store"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", KILL, old.path, moment], capture_output=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    table = Table.open(old.path)
    migrated = moment in ("after update", "after all")
    assert table.manifest.format == (2 if migrated else 1)
    if moment != "after all":
        assert facts(table) == before
    table.add([row("new")])
    again = Table.open(old.path)
    assert again.manifest.format == 2 and len(again) == 23
    assert facts(again)[2:] == before[2:]
    assert {entry.item_id for entry in again.ledger} == {name for _, name in LINES.values()} | {*FILES.values()}
