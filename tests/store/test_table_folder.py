"""Making, opening, refusing: the folder, its manifest and its lock."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row, token_set

from looktwice.errors import Locked, Mismatch, StoreError, UsageError
from looktwice.store import Manifest, Table


def test_manifest_comes_back(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "日本 t.lt", ENCODER, roots=["file:///a/"])
    table.note_run(["file:///b/", "file:///a/"], None)
    for key, codec in (("k", "pq8"), ("l", "int8"), ("k", "pq16")):
        table.note_tokens(token_set(tokens_key=key, codec=codec))
    found = Table.open(tmp_path / "日本 t.lt", ENCODER).manifest
    assert found == table.manifest
    assert found.roots == ("file:///a/", "file:///b/")
    assert [(one["tokens_key"], one["codec"]) for one in found.tokens] == [("l", "int8"), ("k", "pq16")]
    assert json.loads((table.path / "manifest.json").read_text())["format"] == 2


@pytest.mark.parametrize("field, value", [("name", "other"), ("revision", "2"), ("preprocessing", "crop"), ("dim", 16)])
def test_another_encoder_is_refused_with_both_names(tmp_path: Path, field: str, value: object) -> None:
    Table.create(tmp_path / "t.lt", ENCODER)
    other = replace(ENCODER, **{field: value})
    with pytest.raises(Mismatch) as caught:
        Table.open(tmp_path / "t.lt", other)
    assert str(value) in str(caught.value) and str(getattr(ENCODER, field)) in str(caught.value)
    assert "toy" in str(caught.value) and other.name in str(caught.value)


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("x")
    cases = {"nowhere": "does not exist", "file": "is a file", "folder": "not a looktwice table", "file/t.lt": "file"}
    for name, word in cases.items():
        with pytest.raises(UsageError, match=word):
            Table.open(tmp_path / name)
    for name in ("file", "folder"):
        with pytest.raises(UsageError):
            Table.create(tmp_path / name, ENCODER)
    with pytest.raises(StoreError, match="file"):
        Table.create(tmp_path / "file" / "t.lt", ENCODER)
    assert (tmp_path / "folder" / "mine.txt").read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_existing_tables_are_not_made_anew(tmp_path: Path) -> None:
    Table.create(tmp_path / "t.lt", ENCODER).add(random_rows(3))
    with pytest.raises(UsageError, match="is already a table"):
        Table.create(tmp_path / "t.lt", ENCODER)
    assert len(Table.open(tmp_path / "t.lt")) == 3


@pytest.mark.parametrize(
    "found, needs, word",
    [
        (3, "0.9.1", "install looktwice 0.9.1 or newer"),
        (3, None, "install a newer looktwice"),
        (3, "1.0\nor else", "install a newer looktwice"),
        (0, None, "index the images again"),
        (None, None, "again"),
        (True, None, "again"),
        (2.0, None, "again"),
        ("2", None, "again"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, found: object, needs: str | None, word: str) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    values = json.loads((table.path / "manifest.json").read_text())
    (table.path / "manifest.json").write_text(json.dumps({**values, "format": found, "needs": needs}))
    with pytest.raises(UsageError, match=f"format {found!r}.*{word}"):
        Table.open(table.path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "1", '{"format": 1}', '{"format": 1, "encoder": {"name": "x"}}', "\x00\xff"),
        *("[" * 10**5, "9" * 400, '{"format": ' + "9" * 5000 + "}", '{"format": NaN}'),
    ],
)
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    (table.path / "manifest.json").write_text(text)
    with pytest.raises((StoreError, UsageError)):
        Table.open(table.path)


INDEX = {"kind": "rabitq", "rows": 1, "partitions": 1, "nprobes": 1, "refine": 1, "recall": 1.0, "sample": 1}
NAMES = {"name": "toy", "revision": "1", "preprocessing": "none"}


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": []},
        {"encoder": {**NAMES, "dim": "8"}},
        {"encoder": {**NAMES, "dim": 0}},
        {"encoder": {**NAMES, "dim": 10**400}},
        {"encoder": {**NAMES, "dim": True}},
        {"encoder": {**NAMES, "dim": 8, "name": ["toy"]}},
        {"encoder": {**NAMES, "dim": 8, "more": 1}},
        {"encoder": {**NAMES, "dim": 8, "queries": 7}},
        {"roots": "file:///"},
        {"roots": [7]},
        {"index": []},
        {"index": {"kind": "rabitq"}},
        {"index": {**INDEX, "rows": "many"}},
        {"index": {**INDEX, "nprobes": 1.5}},
        {"index": {**INDEX, "recall": float("nan")}},
        {"tokens": {}},
        {"tokens": ["x"]},
        {"tokens": [{"tokens_key": "k"}]},
        {"tokens": [token_set(codebook_sha256=7)]},
        {"tokens": [token_set(width="wide")]},
    ],
)
def test_a_manifest_edited_by_hand_is_damaged_in_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    values = json.loads((table.path / "manifest.json").read_text())
    (table.path / "manifest.json").write_text(json.dumps({**values, "index": INDEX, "tokens": [token_set()]}))
    assert Table.open(table.path).manifest.index == INDEX
    (table.path / "manifest.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(StoreError, match=r"manifest\.json (is damaged|cannot be read)") as caught:
        Table.open(table.path)
    assert len(str(caught.value)) < 600


def test_half_made_tables_are_made_anew(tmp_path: Path) -> None:
    whole = Table.create(tmp_path / "whole.lt", ENCODER).path
    (whole / "manifest.json").rename(whole / "manifest.json.123.part")
    with pytest.raises(UsageError, match="an unfinished table"):
        Table.open(whole)
    torn = shutil.copytree(whole, tmp_path / "torn.lt")
    shutil.rmtree(torn / "items.lance" / "_versions")
    shutil.rmtree(torn / "ledger.lance")
    for path in (whole, torn):
        Table.create(path, ENCODER).add(random_rows(3))
        assert len(Table.open(path)) == 3 and not list(path.glob("*.part"))


def test_rows_without_a_manifest_are_not_thrown_away(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    table.add(random_rows(3))
    (table.path / "manifest.json").unlink()
    for attempt in (Table.open, partial(Table.create, encoder=ENCODER)):
        with pytest.raises(StoreError, match=r"has rows but no manifest\.json: restore"):
            attempt(table.path)
    assert Manifest(ENCODER).create(table.location)
    assert len(Table.open(table.path)) == 3


def test_lost_parts_are_told(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    shutil.rmtree(table.path / "items.lance")
    with pytest.raises(StoreError, match="opening the table failed"):
        Table.open(table.path)


def test_lost_data_is_told(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    for part in range(3):
        table.add(random_rows(50, start=50 * part))
        Table.open(table.path).info()
    next((table.path / "items.lance" / "data").iterdir()).unlink()
    lost = Table.open(table.path)
    for ask in (lost.info, partial(lost.search, [1.0] * 8, 5), lost.hashes, partial(lost.export, tmp_path / "e")):
        with pytest.raises(StoreError, match=r": files of the table are missing; restore them from a copy"):
            ask()


def test_links_in_a_table_from_a_stranger_lead_to_no_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    table = Table.create(tmp_path / "t.lt", ENCODER)
    for name in ("manifest.json.tmp", f"manifest.json.{os.getpid()}.part"):
        (table.path / name).symlink_to(tmp_path / "victim")
    table.note_run(["file:///a/"], None)
    (table.path / ".writer.lock").unlink()
    (table.path / ".writer.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match="cannot be locked"):
        Table.open(table.path).note_run(["file:///b/"], None)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (table.path / "manifest.json").is_symlink()
    assert Table.open(table.path).manifest.roots == ("file:///a/",)


def _replace_with(path: Path, kind: str, elsewhere: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link":
            path.symlink_to(elsewhere)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize("part", ["manifest.json", "items.lance", "tokens.lance/_versions", "items.lance/data/*"])
def test_a_strangers_table_holds_only_files_of_its_own(tmp_path: Path, part: str, kind: str) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    table.add(random_rows(3))
    victim = next(table.path.glob(part))
    (shutil.copytree if victim.is_dir() else shutil.copy)(victim, tmp_path / "elsewhere")
    _replace_with(victim, kind, tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=re.escape(victim.name)):
        Table.open(table.path)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_codebook_is_a_file_of_the_table(tmp_path: Path, kind: str, whole: bool) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    name = table.put_codebook(b"book")
    victim = table.path / "codebooks" if whole else table.path / "codebooks" / name
    (shutil.copytree if whole else shutil.copy)(victim, tmp_path / "elsewhere")
    _replace_with(victim, kind, tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        table.codebook(name)
    if whole and kind == "link":
        with pytest.raises(StoreError, match="is a link"):
            table.put_codebook(b"other")
        assert os.listdir(tmp_path / "elsewhere") == [name]


@pytest.mark.parametrize("name", ["../manifest.json", "/etc/passwd", "0" * 63, "F" * 64, "0" * 64 + "\n", ""])
def test_a_codebook_is_named_by_its_hash(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="not a SHA-256"):
        Table.create(tmp_path / "t.lt", ENCODER).codebook(name)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    name = table.put_codebook(b"book")
    os.truncate(table.path / "codebooks" / name, 1000)
    os.truncate(table.path / "manifest.json", 2**33)
    monkeypatch.setattr("looktwice.store.tokens.MOST_CODEBOOK_BYTES", 999)
    for ask in (partial(table.codebook, name), partial(Table.open, table.path)):
        with pytest.raises(StoreError, match="looktwice did not write it"):
            ask()


HOLD = """
import sys, time
from looktwice.store import Table
with Table.open(sys.argv[1]).writer():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_writers(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    other = subprocess.Popen([sys.executable, "-c", HOLD, table.path], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for write in (
            lambda: table.add([row("a")]),
            lambda: table.delete(["a"]),
            lambda: table.compact(),
            lambda: table.build_index(),
            lambda: table.note_run(["r"], None),
            lambda: table.ledger.clear(["u"]),
            lambda: table.put_codes([]),
        ):
            with pytest.raises(Locked, match=f"Process {other.pid} is writing"):
                write()
        assert table.search(np.eye(8)[0], 3) == [] and len(table) == 0  # reading does not wait
    finally:
        other.kill()
        other.wait()
    table.add([row("a")])  # the lock died with its process
    assert len(table) == 1


def test_a_lock_that_is_a_strangers_file_is_not_written(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    lock = table.path / ".writer.lock"
    (tmp_path / "victim").write_text("mine")
    for put in (partial(os.link, tmp_path / "victim", lock), partial(os.mkfifo, lock), lock.mkdir):
        lock.rmdir() if lock.is_dir() else lock.unlink(missing_ok=True)
        put()
        with pytest.raises(StoreError, match=r"writer\.lock is a link or not a regular file"):
            table.note_run(["file:///b/"], None)
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a file system without locks."""

    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_copied_lock_does_not_hold_for_ever(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    lock = table.path / ".writer.lock"
    ended = subprocess.Popen(["true"])
    ended.wait()
    lock.write_text(f"{ended.pid}\n{socket.gethostname()}\n")  # left by a process of this machine
    table.add([row("a")])
    for record in ("4242\nelsewhere\n", "4242\n", "", "junk\n" * 999, f"{os.getpid()}\n{socket.gethostname()}\n"):
        lock.write_text(record)
        with pytest.raises(Locked, match=r"writer\.lock names .* remove that file") as caught:
            Table.open(table.path).add([row("b")])
        assert "elsewhere" not in record or "process 4242 on elsewhere" in str(caught.value)
        lock.unlink()
    with table.writer(), pytest.raises(Locked, match=f"process {os.getpid()}"):
        Table.open(table.path).add([row("b")])
    table.add([row("b")])
    assert len(table) == 2 and not lock.exists()


def test_an_older_filelock_without_flock_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)

    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(table._lock._lock, "acquire", missing)
    with pytest.raises(StoreError, match="install a newer filelock"):
        table.add([row("a")])


@pytest.mark.parametrize("record", ["1073741823\n{host}\n", "-1\n", "9" * 30 + "\n", "", "x" * 9999])
def test_a_lock_names_only_processes_that_live(tmp_path: Path, record: str) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    with table.writer():
        (table.path / ".writer.lock").write_text(record.format(host=socket.gethostname()))
        with pytest.raises(Locked, match="Another process is writing"):
            Table.open(table.path).add([row("a")])
        (table.path / ".writer.lock").write_text("7\nfar-away\n")  # the kernels of a network share agree on a lock
        with pytest.raises(Locked, match="Process 7 on far-away is writing"):
            Table.open(table.path).add([row("a")])


def test_a_full_disk_does_not_keep_anybody_from_deleting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    table.add([row("a")])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert table.delete(["a"]) == 1


def test_one_writer_may_write_many_things(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", ENCODER)
    with table.writer():
        table.add([row("a")])
        with table.writer():
            table.add([row("b")])
        table.delete(["a"])
    assert list(table.hashes()) == ["b"]


def test_writers_start_from_the_newest_version(tmp_path: Path) -> None:
    one = Table.create(tmp_path / "t.lt", ENCODER)
    two = Table.open(one.path)
    one.add([row("a")])
    one.note_run(["r"], None)
    assert len(two) == 0  # what it saw when it was opened
    with two.writer():
        assert (len(two), two.manifest.roots) == (1, ("r",))
    one.add([row("b")])
    assert (len(two.snapshot()), len(two)) == (2, 1)
    with pytest.warns(DeprecationWarning, match="use Table.snapshot"):
        two.refresh()
    assert len(two) == 2


def test_importing_the_store_is_cheap() -> None:
    code = "import sys, looktwice.store, looktwice.sources, looktwice.indexing, looktwice.sources.images\n"
    code += "sys.exit(any(name in sys.modules for name in ('lancedb', 'pyarrow', 'PIL', 'torch', 'faiss')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
