"""Indexing in two processes: one encodes, another commits; the table is the one that `index` makes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from colour_encoder import ColourEncoder, picture, save_pictures

from looktwice.errors import Mismatch, TooManyFailures, UsageError
from looktwice.indexing import EncodedBatch, IndexReport, commit, encode_batches, index
from looktwice.sources import Source, scan
from looktwice.store import Table

TESTS = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, copies, a broken file, a list with a bad line and one that shares its id with a file."""
    made = tmp_path / "pictures"
    save_pictures(made / "x", 30)
    save_pictures(made / "y", 30, start=20)  # ten of them are copies
    (made / "x" / "bad.png").write_bytes(b"words")
    lines = [{"id": "a", "text": "zoo"}, {"id": "x/0003.png", "text": "twice"}, {"id": "b", "image": "no.png"}]
    (made / "l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "bad line\n")
    return made


def make(path: Path) -> Table:
    return Table.create(path, ColourEncoder().info, {"year": int})


def paths_of(folder: Path) -> list[str]:
    return [str(folder), str(folder / "l.jsonl")]


def encode_elsewhere(out: Path, known: Table | None, folder: Path, part: int = 0, parts: int = 1) -> Path:
    arguments = [out, "-" if known is None else known.path, part, parts, *paths_of(folder)]
    python = os.pathsep.join([str(TESTS), *sys.path])
    subprocess.run(
        [sys.executable, TESTS / "encode_process.py", *map(str, arguments)],
        check=True,
        env={**os.environ, "PYTHONPATH": python},
    )
    return out


def read(*files: Path) -> Iterator[EncodedBatch]:
    for path in files:
        with path.open("rb") as file:
            while file.peek(1):
                yield pickle.load(file)


def facts(table: Table) -> list[object]:
    rows = [
        (row.id, row.uri, row.root, row.sha256, row.width, row.height, row.text, row.metadata, row.vector.tobytes())
        for row in table.get(sorted(table.hashes()))
    ]
    lines = [replace(entry, at="") for entry in table.ledger]
    return [rows, lines, table.manifest]


def without_seconds(report: IndexReport) -> IndexReport:
    return replace(report, seconds=0.0)


def test_two_processes_make_the_table_that_index_makes(tmp_path: Path, folder: Path) -> None:
    right, table = make(tmp_path / "right.lt"), make(tmp_path / "t.lt")

    def both(known: Table | None, prune: bool = False) -> IndexReport:
        found = scan(paths_of(folder), roots=right.manifest.roots)
        expected = index(right, found, ColourEncoder(), batch_size=8, prune=prune)
        report = commit(table, read(encode_elsewhere(tmp_path / "batches", known, folder)), prune=prune)
        assert without_seconds(report) == without_seconds(expected)
        assert facts(table) == facts(right)
        return report

    report = both(table)
    assert (report.added, report.encoded, report.failed, len(table)) == (61, 51, 4, 61)
    report = both(table)
    assert (report.unchanged, report.encoded, report.failed) == (61, 0, 4)
    (folder / "x" / "0001.png").write_bytes(picture("red"))
    (folder / "x" / "bad.png").write_bytes(picture("blue"))
    for number in (5, 6):
        (folder / "x" / f"000{number}.png").unlink()
    report = both(table, prune=True)
    assert (report.added, report.updated, report.pruned, report.failed) == (1, 1, 2, 3)


def test_several_workers_that_know_nothing_of_the_table_or_one_another(tmp_path: Path, folder: Path) -> None:
    right, table = make(tmp_path / "right.lt"), make(tmp_path / "t.lt")
    index(right, scan(paths_of(folder)), ColourEncoder())
    files = [encode_elsewhere(tmp_path / f"{part}", None, folder, part, 3) for part in range(3)]
    report = commit(table, read(*files))
    assert (report.added, report.failed) == (61, 4)
    rows, lines, _ = facts(table)
    assert rows == facts(right)[0]
    right_lines = {(entry.uri, entry.stage, entry.reason, entry.item_id) for entry in right.ledger}
    assert {(entry.uri, entry.stage, entry.reason, entry.item_id) for entry in table.ledger} == right_lines
    again = commit(table, read(*files))
    assert (again.added, again.updated, again.failed) == (0, 61, 4) and facts(table)[:2] == [rows, lines]


def test_part_of_the_batches_is_a_whole_table_and_the_rest_may_follow(tmp_path: Path, folder: Path) -> None:
    """As after a worker, or the process that commits, was killed."""
    table = make(tmp_path / "t.lt")
    batches = list(read(encode_elsewhere(tmp_path / "b", None, folder)))

    def torn() -> Iterator[EncodedBatch]:
        yield from batches[:4]
        raise ConnectionError("the worker is gone")

    with pytest.raises(ConnectionError):
        commit(table, torn())
    done = len(table)
    assert 0 < done < 61
    with pytest.raises(UsageError, match="no scan was read to its end"):
        commit(table, batches[:5], prune=True)
    assert len(table) >= done
    report = commit(table, batches, prune=True)
    assert (len(table), report.gone, report.pruned) == (61, 0, 0)


def test_what_changed_in_the_table_meanwhile_is_noticed(tmp_path: Path, folder: Path) -> None:
    table = make(tmp_path / "t.lt")
    index(table, scan(paths_of(folder)), ColourEncoder())
    batches = list(encode_batches(scan(paths_of(folder)), ColourEncoder(), known=table.snapshot()))
    table.delete(["x/0007.png"], remember=False)
    (folder / "x" / "0008.png").write_bytes(picture("red"))
    index(table, scan(paths_of(folder)[:1], roots=table.manifest.roots), ColourEncoder())
    table.delete(["x/0009.png"], remember=False)
    report = commit(table, batches)
    assert report.reasons["outdated"] == 2 and report.unchanged == 59
    outdated = {entry.item_id for entry in table.ledger if entry.reason == "outdated"}
    assert outdated == {"x/0008.png", "x/0009.png"}
    index(table, scan(paths_of(folder)), ColourEncoder())
    assert len(table) == 61 and "outdated" not in {entry.reason for entry in table.ledger}


def test_an_id_of_another_root_is_refused_when_it_is_committed(tmp_path: Path) -> None:
    table = make(tmp_path / "t.lt")
    for name in ("one", "two"):
        save_pictures(tmp_path / name, 2)
    parts = [list(encode_batches(scan([tmp_path / name]), ColourEncoder(), known=table)) for name in ("one", "two")]
    assert commit(table, parts[0]).added == 2
    report = commit(table, parts[1])
    assert (report.added, report.reasons) == (0, {"duplicate-id": 2})
    assert {row.uri for row in table.get(sorted(table.hashes()))} == {
        path.as_uri() for path in (tmp_path / "one").iterdir()
    }


def test_metadata_that_does_not_fit_is_null_in_its_column_and_counted(tmp_path: Path) -> None:
    table = make(tmp_path / "t.lt")
    own = [Source(str(n), "", "", f"word {n}", {"year": n if n else "soon"}, has_image=False) for n in range(3)]
    report = commit(table, encode_batches(own, ColourEncoder()))
    assert (report.added, report.reasons, report.unfit) == (3, {}, {"year": 1})
    assert [row["id"] for row in table.rows(where="year IS NULL")] == ["0"] and len(table.ledger) == 0


def test_batches_of_another_encoder_are_refused(tmp_path: Path, folder: Path) -> None:
    table = make(tmp_path / "t.lt")
    with pytest.raises(Mismatch, match="revision"):
        commit(table, encode_batches(scan([folder]), ColourEncoder(revision="2")))
    assert len(table) == 0


def test_too_many_failures_end_a_commit_and_keep_what_came_before(tmp_path: Path, folder: Path) -> None:
    table = make(tmp_path / "t.lt")
    with pytest.raises(
        TooManyFailures, match=r"1 items failed, more than the 0 that max_failures \(--max-failures\) allows"
    ):
        commit(table, encode_batches(scan(paths_of(folder)), ColourEncoder(), batch_size=8), max_failures=0)
    assert len(table) == 24 and len(table.ledger) == 1


def test_progress_is_told_batch_by_batch(tmp_path: Path, folder: Path) -> None:
    met: list[int] = []
    commit(
        make(tmp_path / "t.lt"),
        encode_batches(scan([folder]), ColourEncoder(), batch_size=10),
        progress=lambda report: met.append(report.met),
    )
    assert met == sorted(met) and met[-1] == 61 and len(set(met)) >= 6
