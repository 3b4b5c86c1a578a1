"""Real processes: killed while indexing, two at once, a reader beside a writer, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder, save_pictures

from looktwice import indexing
from looktwice.errors import StoreError, UsageError
from looktwice.indexing import index
from looktwice.sources import images, scan
from looktwice.store import Table, TableReader
from looktwice.types import Item

TESTS = Path(__file__).parent.parent
PICTURES = 200


def start(table: Path, folder: Path, commit_rows: int = 20, seconds: float = 0.02) -> subprocess.Popen[str]:
    command = [sys.executable, TESTS / "index_process.py", table, folder, str(commit_rows), str(seconds)]
    paths = os.pathsep.join([str(TESTS), *sys.path])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def read_until(process: subprocess.Popen[str], rows: int) -> int:
    """Read the process's lines until it has committed that many rows; returns how many it says it has."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= rows:
            return int(line)
    raise AssertionError("it ended before")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "pictures"
    save_pictures(folder, PICTURES)
    return folder


def check(table: TableReader, folder: Path) -> None:
    """Every picture once, with its own vector and hash."""
    rows = [row["id"] for row in table.rows()]
    assert sorted(rows) == sorted(path.name for path in folder.iterdir())
    encoder = ColourEncoder()
    for row in table.get(sorted(rows)):
        image, _ = images.load((folder / row.id).read_bytes())
        assert np.allclose(row.vector, encoder.encode([Item(row.id, image)])[0], atol=1e-3)
    assert list(table.ledger) == []


def test_killed_again_and_again(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "t.lt"
    dice = random.Random(0)
    committed = 0
    for target in (20, 80, 140):
        process = start(path, pictures)
        committed = read_until(process, target)
        time.sleep(dice.random() * 0.15)
        process.kill()
        process.wait()
        table = Table.open(path)
        assert len(table) >= committed  # nothing that was committed is lost
        ids = [row["id"] for row in table.rows()]
        assert len(ids) == len(set(ids)) == len(table)
        assert table.search(np.eye(16)[0], 500) == table.search_many(np.eye(16)[[0] * 9], 500)[0]
    last = start(path, pictures, seconds=0)
    assert last.communicate()[0].endswith("done\n") and last.returncode == 0
    check(Table.open(path), pictures)


def test_killed_while_the_table_is_made(tmp_path: Path, pictures: Path) -> None:
    for delay in (0.0, 0.02):
        path = tmp_path / f"{delay}.lt"
        process = start(path, pictures)
        while not path.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.wait()
        if (path / "manifest.json").exists():
            table = Table.open(path)
        else:
            with pytest.raises(UsageError):
                Table.open(path)
            table = Table.create(path, ColourEncoder().info)
        report = index(table, scan([pictures]), ColourEncoder())
        assert report.added + report.unchanged == len(table) == PICTURES


def test_interrupted_from_the_keyboard(tmp_path: Path, pictures: Path) -> None:
    process = start(tmp_path / "t.lt", pictures)
    committed = read_until(process, 40)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert process.returncode != 0
    table = Table.open(tmp_path / "t.lt")
    assert committed <= len(table) < PICTURES
    encoder = ColourEncoder()
    done = len(table)
    report = index(table, scan([pictures]), encoder)
    assert (report.unchanged, report.added, encoder.encoded) == (done, PICTURES - done, PICTURES - done)
    check(table, pictures)


def test_two_writers_at_once_double_nothing(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "t.lt"
    Table.create(path, ColourEncoder().info)
    both = [start(path, pictures) for _ in range(2)]
    said = [process.communicate()[0].split()[-1] for process in both]
    assert sorted(said) in (["done", "done"], ["done", "locked"])
    check(Table.open(path), pictures)


def test_reader_beside_a_writer_sees_whole_versions(tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "t.lt"
    process = start(path, pictures)
    read_until(process, 20)
    held = Table.open(path)
    before, frozen = held.hashes(), held.search(np.ones(16), 1000)
    counts = []
    while process.poll() is None:
        table = Table.open(path)
        hashes = table.hashes()
        counts.append(len(hashes))
        assert len(table) == len(hashes) == len(table.search(np.ones(16), 1000))
        time.sleep(0.05)
    assert counts == sorted(counts) and all(count % 20 == 0 for count in counts)
    assert counts[0] < PICTURES  # it was read while it was written
    assert held.hashes() == before and held.search(np.ones(16), 1000) == frozen
    check(held.snapshot(), pictures)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(0)
    words = [{"id": f"{n}", "text": "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=3000))} for n in range(2000)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, words)))
    monkeypatch.setattr(indexing.writer, "COMMIT_ROWS", 100)
    table = Table.create(small_disk / "t.lt", ColourEncoder().info)
    with pytest.raises(StoreError, match=r"^The disk is full.*run it again\.$"):
        index(table, scan([tmp_path / "l.jsonl"]), ColourEncoder())
    whole = Table.open(small_disk / "t.lt")
    assert 0 < len(whole) < 2000
    assert len(whole.hashes()) == len(whole) == len(whole.search(np.ones(16), 2000))
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    report = index(whole, scan([tmp_path / "l.jsonl"]), ColourEncoder())
    assert report.unchanged > 0 and report.unchanged + report.added == len(whole) == 2000
