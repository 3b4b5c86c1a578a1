"""Indexing: every item once, every failure in the ledger, nothing encoded twice."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder, picture, save_pictures
from indexing_helpers import (
    Collection,
    made_fixture,  # noqa: F401  # fixtures
)

from looktwice import sources
from looktwice.errors import UsageError
from looktwice.indexing import index, writer
from looktwice.indexing.failures import Failures
from looktwice.sources import images, scan
from looktwice.store import LedgerEntry, Table
from looktwice.types import Item


def test_rows_hold_what_was_read(made: Collection) -> None:
    made.save(red="red", sea="#0080ff")
    (made.folder / "wide.jpg").write_bytes(picture("lime", (40, 20), "JPEG"))
    report = made.index()
    assert (report.added, report.encoded, report.failed) == (3, 3, 0)
    red, sea, wide = made.table.get(["red.png", "sea.png", "wide.jpg"])
    assert np.allclose(red.vector, [0.5, 0, 0] * 4 + [0] * 4)
    assert np.allclose(sea.vector, np.array([0, 128 / 255, 1] * 4 + [0] * 4) / np.hypot(128 / 255, 1) / 2, atol=1e-3)
    assert (wide.width, wide.height, wide.text, wide.metadata) == (40, 20, None, {})
    assert wide.root == sources.file_uri(made.folder, folder=True)
    assert sources.read_uri(red.uri, sha256=red.sha256) == picture("red")
    assert made.table.manifest.roots == (red.root,)


def test_second_run_encodes_nothing(made: Collection) -> None:
    save_pictures(made.folder, 70)
    made.index(batch_size=16)
    assert [len(call) for call in made.encoder.calls] == [16, 16, 16, 16, 6]
    versions = made.table._items.version, made.table._failures.version
    report = made.index()
    assert (report.unchanged, report.encoded, made.encoder.calls) == (70, 0, [])
    assert (made.table._items.version, made.table._failures.version) == versions  # and writes nothing


def test_one_bad_file_shifts_no_row(made: Collection) -> None:
    save_pictures(made.folder, 30)
    bad = {
        "0003.png": b"",
        "0007.png": b"words",
        "0011.png": picture("red")[:-30],
        "0013.png": picture("black"),
    }
    for name, data in bad.items():
        (made.folder / name).write_bytes(data)
    (made.folder / "0017.png").unlink()
    (made.folder / "0017.png").symlink_to("nowhere")
    report = made.index(batch_size=7)
    assert (report.added, report.failed) == (25, 5)
    assert made.ledger() == {
        "0003.png": "empty",
        "0007.png": "not-an-image",
        "0011.png": "truncated",
        "0013.png": "no-direction",
        "0017.png": "dangling-link",
    }
    right = ColourEncoder()
    for row in made.table.get(made.ids()):
        image, _ = images.load((made.folder / row.id).read_bytes())
        assert np.allclose(row.vector, right.encode([Item(row.id, image)])[0], atol=1e-3), row.id


def test_file_that_vanishes_during_the_run(made: Collection) -> None:
    save_pictures(made.folder, 3)
    found = list(scan([made.folder]))
    (made.folder / "0001.png").unlink()
    report = index(made.table, found, ColourEncoder())
    assert (report.added, report.reasons) == (2, {"missing": 1})


def test_ledger_lines_go_when_the_file_is_mended_or_gone(made: Collection) -> None:
    made.save(good="red")
    for name in ("mended", "gone", "still"):
        (made.folder / f"{name}.png").write_bytes(b"broken")
    assert made.index().failed == 3
    made.save(mended="blue")
    (made.folder / "gone.png").unlink()
    report = made.index()
    assert (report.added, report.unchanged, report.failed) == (1, 1, 1)
    assert made.ledger() == {"still.png": "not-an-image"}


def test_lines_of_a_list_that_share_a_picture_fail_and_recover_one_by_one(made: Collection, tmp_path: Path) -> None:
    made.save(good="red")
    (made.folder / "bad.png").write_bytes(b"no image")
    records = [
        {"id": "a", "image": "no.png", "text": "one"},
        {"id": "b", "image": "no.png", "text": "two"},
        {"id": "c", "image": "pictures/bad.png"},
        {"id": "d", "image": "pictures/good.png"},
        {"id": "e", "image": "pictures/good.png", "text": "five"},
    ]
    listed = tmp_path / "l.jsonl"

    def told(*lines: object) -> dict[str, tuple[str, str]]:
        """Id in the line that the ledger names -> reason, detail."""
        listed.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
        made.index(listed)
        found = {sources.read_uri(entry.uri).decode(): (entry.reason, entry.detail) for entry in made.table.ledger}
        assert all(entry.uri.startswith(f"{sources.file_uri(listed)}#offset=") for entry in made.table.ledger)
        return {json.loads(line)["id"] if line[0] == "{" else line: why for line, why in found.items()}

    nowhere = f"{tmp_path}/no.png: the file does not exist"
    for _ in range(2):
        assert told(*records) == {
            "a": ("missing", f"line 1, id 'a', {nowhere}"),
            "b": ("missing", f"line 2, id 'b', {nowhere}"),
            "c": ("not-an-image", told(*records)["c"][1]),
        }
    assert told(*records)["c"][1].startswith(f"line 3, id 'c', {made.folder}/bad.png: ")
    again = {"id": "d", "text": "words"}
    assert set(told(*records, again)) == {"a", "b", "c", "d"}
    assert told(*records, again)["d"][1].startswith("line 6, id 'd': the id 'd' belongs to ")
    (tmp_path / "no.png").write_bytes(picture("blue"))
    records[1] = {**records[1], "image": "never.png"}
    assert set(told(*records)) == {"b", "c"}
    told("bad line\n", *records)
    del records[0]  # every line is somewhere else; the list, though one line is bad, was read to its end
    assert {name: why[0] for name, why in told("bad line\n", *records).items()} == {
        "bad line\n": "bad-record",
        "b": "missing",
        "c": "not-an-image",
    }


def test_ledger_lines_of_lists_from_before_go(made: Collection, tmp_path: Path) -> None:
    """They were those of the pictures, which several lines of a list may share."""
    made.save(good="red")
    listed = tmp_path / "l.jsonl"
    listed.write_text('{"id": "a", "image": "pictures/good.png"}\nbad line\n')
    old = sources.file_uri(made.folder / "good.png")
    made.table.ledger.put([LedgerEntry(old, "read", "missing", "gone", sources.file_uri(listed), "2024")])
    assert made.index(listed).added == 1
    assert list(made.ledger().values()) == ["bad-record"]


def test_a_deleted_item_of_a_list_leaves_no_ledger_line(made: Collection, tmp_path: Path) -> None:
    made.save(a="red", b="blue")
    listed = tmp_path / "l.jsonl"
    odd = ["it's", 'say "so"', "plain"]
    listed.write_text("".join(json.dumps({"id": one, "image": "pictures/a.png"}) + "\n" for one in odd))
    assert made.index(listed).added == 3
    listed.write_text("".join(json.dumps({"id": one, "image": "gone.png"}) + "\n" for one in odd))
    made.index(listed)
    assert len(made.ledger()) == 3
    made.table.delete(odd[:2])
    (left,) = made.table.ledger
    assert "id 'plain'" in left.detail


def test_the_ledger_names_items_by_id(made: Collection, tmp_path: Path) -> None:
    made.save(good="red")
    (made.folder / "bad.png").write_bytes(b"words")
    (made.folder / "loop.png").symlink_to("loop.png")
    listed = tmp_path / "l.jsonl"
    lines = [{"id": "id 'x': ", "image": "no.png"}, {"id": "good.png", "text": "twice"}]
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines) + "bad line\n")
    made.index(made.folder, listed)
    found = {(entry.item_id, entry.reason) for entry in made.table.ledger}
    assert found == {
        ("bad.png", "not-an-image"),
        ("", "link-loop"),
        ("id 'x': ", "missing"),
        ("good.png", "duplicate-id"),
        ("", "bad-record"),
    }
    made.table.delete(["good.png"])
    left = {(entry.item_id, entry.reason) for entry in made.table.ledger}
    assert left == found, "good.png of the list is another item than the one that was deleted"


def test_what_is_known_of_tokens_is_not_for_indexing_to_forget(made: Collection) -> None:
    made.save(a="red")
    made.index()
    made.table.ledger.put([LedgerEntry(sources.file_uri(made.folder / "a.png"), "tokens:k", "too-large")])
    assert made.index().unchanged == 1
    assert [entry.stage for entry in made.table.ledger] == ["tokens:k"]


def test_failing_again_writes_nothing(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(made.folder, 9)
    for name in ("0003.png", "0005.png"):
        (made.folder / name).write_bytes(b"broken")
    made.index()
    first = list(made.table.ledger)
    before = made.table._failures.version, made.table._items.version
    monkeypatch.setattr(writer, "COMMIT_ROWS", 1)
    for _ in range(3):
        assert made.index().failed == 2
    assert (made.table._failures.version, made.table._items.version) == before
    assert list(made.table.ledger) == first
    (made.folder / "0003.png").write_bytes(b"")
    (made.folder / "0005.png").unlink()
    made.index()
    (now,) = made.table.ledger
    assert now.reason == "empty" and now.at > first[0].at, "what fails in another way is written"
    (made.folder / "0003.png").write_bytes(b"broken")
    assert made.index().failed == 1 and made.ledger() == {"0003.png": "not-an-image"}


def test_a_failure_that_went_and_came_back_is_written_again(made: Collection) -> None:
    entry = LedgerEntry("file:///a", "read", "missing", "gone", "file:///", "2024")
    made.table.ledger.put([entry])
    failures = Failures(made.table.ledger)
    assert entry not in failures
    failures.put([entry])
    assert entry in failures and LedgerEntry("file:///b", "read", "missing", "gone", "file:///") not in failures
    failures.clear(["file:///a"])
    failures.put([entry])
    assert list(made.table.ledger) == [entry]


def test_changed_file_is_encoded_again(made: Collection) -> None:
    made.save(a="red", b="lime")
    made.index()
    made.save(a="blue")
    report = made.index()
    assert (report.updated, report.unchanged, report.added) == (1, 1, 0)
    assert made.encoder.calls == [["a.png"]]
    assert np.allclose(made.table.get(["a.png"])[0].vector, [0, 0, 0.5] * 4 + [0] * 4)


def test_file_that_breaks_keeps_its_last_good_row(made: Collection) -> None:
    made.save(a="red")
    made.index()
    (made.folder / "a.png").write_bytes(b"broken")
    assert made.index(prune=True).failed == 1
    assert made.ids() == ["a.png"]
    assert made.ledger() == {"a.png": "not-an-image"}


def test_same_picture_is_encoded_once(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    made.save(a="red", b="red", c="blue")
    monkeypatch.setattr(writer, "COMMIT_ROWS", 2)  # the copy may be in the table already, or only in this batch
    report = made.index(batch_size=3)
    assert (report.added, report.encoded) == (3, 2)
    made.save(d="red", e="blue", f="red")
    report = made.index(batch_size=1)
    assert (report.added, report.unchanged, report.encoded) == (3, 3, 0)
    rows = made.table.get(["a.png", "b.png", "d.png", "f.png"])
    assert all(np.array_equal(row.vector, rows[0].vector) for row in rows)


def test_rows_of_a_placeholder_are_looked_up_once(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    find = Table.find_images
    monkeypatch.setattr(Table, "find_images", lambda self, sums: find(self, asked.append(set(sums)) or asked[-1]))
    made.save(first="red")
    made.index()
    asked.clear()
    made.save(**{f"x{number}": "red" for number in range(6)})
    report = made.index(batch_size=2)
    assert (report.added, report.encoded) == (6, 0) and sum(map(len, asked)) == 1
    assert {tuple(row.vector) for row in made.table.get(made.ids())} == {tuple(made.table.get(["x1.png"])[0].vector)}


def test_text_that_becomes_a_picture_of_the_same_bytes(made: Collection, tmp_path: Path) -> None:
    listed = tmp_path / "l.jsonl"
    listed.write_text('{"id": "a", "text": "red"}\n')
    assert made.index(listed).added == 1
    (tmp_path / "red.png").write_text("red")
    listed.write_text('{"id": "a", "text": "red", "image": "red.png"}\n')
    report = made.index(listed)
    assert report.failed == 1 and list(made.ledger().values()) == ["not-an-image"]


def test_same_picture_with_other_words_is_another_item(made: Collection, tmp_path: Path) -> None:
    made.save(a="red")
    lines = [{"id": str(n), "image": "a.png", "text": text} for n, text in enumerate([None, "abc", "abc", "xyz"])]
    (made.folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = made.index(made.folder / "l.jsonl")
    assert (report.added, report.encoded) == (4, 3)
    vectors = [row.vector for row in made.table.get(list("0123"))]
    assert np.array_equal(vectors[1], vectors[2])
    assert len({vector.tobytes() for vector in vectors}) == 3


def test_texts_and_metadata(made: Collection) -> None:
    lines = [{"id": "t", "text": "zoo", "year": 1999}, {"id": "u", "text": "a", "metadata": {"year": "1999"}}]
    (made.folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = made.index(made.folder / "l.jsonl")
    assert (report.added, report.reasons, report.unfit) == (2, {}, {"year": 1})
    assert made.table.count("year IS NULL") == 1 and made.table.get(["u"])[0].metadata == {"year": "1999"}
    (row,) = made.table.get(["t"])
    assert (row.text, row.width, row.height, row.metadata) == ("zoo", 0, 0, {"year": 1999})
    assert np.allclose(row.vector[12:], np.array([0, 0, 2, 1]) / np.sqrt(5), atol=1e-3)
    (made.folder / "l.jsonl").write_text(json.dumps({**lines[0], "year": 2000}))
    report = made.index(made.folder / "l.jsonl")
    assert (report.updated, report.encoded) == (1, 0)  # only metadata changed
    assert made.table.count("year = 2000") == 1


def test_tar(made: Collection) -> None:
    with tarfile.open(made.folder / "s.tar", "w") as archive:
        for name, data in {"a.png": picture("red"), "a.json": b'{"year": 3}', "b.png": b"broken"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    report = made.index()
    assert (report.added, report.failed) == (1, 1)
    assert made.table.get(["s.tar/a"])[0].metadata == {"year": 3}
    assert made.index(made.folder / "s.tar").unchanged == 1  # the same ids, named alone or in its folder


def test_gone_is_told_and_pruned_on_demand(made: Collection) -> None:
    save_pictures(made.folder / "x", 4)
    save_pictures(made.folder / "y", 4, start=10)
    made.index()
    (made.folder / "x" / "0002.png").unlink()
    (made.folder / "y" / "0011.png").unlink()
    report = made.index(made.folder / "x", prune=True)
    assert (report.gone, report.pruned, report.unchanged) == (1, 1, 3)  # y was not looked at
    report = made.index()
    assert (report.gone, report.pruned) == (1, 0)
    assert len(made.ids()) == 7
    report = made.index(prune=True)
    assert (report.gone, report.pruned, report.withheld) == (1, 1, ())
    assert made.ids() == ["x/0000.png", "x/0001.png", "x/0003.png", "y/0010.png", "y/0012.png", "y/0013.png"]


def test_a_parent_of_what_is_indexed_adds_only_the_rest(made: Collection) -> None:
    for place, start in (("b", 0), ("c", 5), ("d/e", 10)):
        save_pictures(made.folder / place, 3, start=start)
    made.index(made.folder / "b", made.folder / "d" / "e")
    report = made.index()
    assert (report.added, report.unchanged, report.gone) == (3, 6, 0)
    assert made.ids() == [f"{name}.png" for name in ("0000", "0001", "0002", "0010", "0011", "0012")] + [
        f"c/{name}.png" for name in ("0005", "0006", "0007")
    ]
    (made.folder / "b" / "0001.png").unlink()
    (made.folder / "c" / "0005.png").unlink()
    shutil.rmtree(made.folder / "d")
    report = made.index(prune=True)
    assert (report.gone, report.pruned, report.withheld, len(made.table)) == (5, 5, (), 4)
    shutil.rmtree(made.folder / "b")
    (made.folder / "b").mkdir()  # a mount point without its disk
    report = made.index(prune=True)
    assert (report.gone, report.pruned, report.withheld) == (2, 0, (f"{made.folder}/b/",))


def test_an_emptied_folder_is_not_pruned(made: Collection, tmp_path: Path) -> None:
    save_pictures(made.folder, 3)
    made.index()
    made.folder.rename(tmp_path / "elsewhere")
    made.folder.mkdir()  # a mount point without its disk
    report = made.index(prune=True)
    assert (report.gone, report.pruned, report.withheld) == (3, 0, (f"{made.folder}/",))
    assert len(made.table) == 3
    made.folder.rmdir()
    with pytest.raises(UsageError, match="does not exist"):
        made.index(prune=True)


def test_an_emptied_folder_below_is_not_pruned_and_one_that_is_gone_is(made: Collection) -> None:
    for place, start in (("disk/a", 0), ("disk/b", 5), ("other", 10), ("kept", 15)):
        save_pictures(made.folder / place, 2, start=start)
    (made.folder / "one.png").write_bytes(picture("red"))
    made.index()
    shutil.rmtree(made.folder / "disk")
    (made.folder / "disk").mkdir()  # a mount point without its disk
    shutil.rmtree(made.folder / "other")
    report = made.index(prune=True)
    assert (report.gone, report.pruned, report.withheld) == (6, 2, (f"{made.folder}/disk/",))
    assert made.ids() == [
        "disk/a/0000.png",
        "disk/a/0001.png",
        "disk/b/0005.png",
        "disk/b/0006.png",
        "kept/0015.png",
        "kept/0016.png",
        "one.png",
    ]
    (made.folder / "disk").rmdir()
    report = made.index(prune=True)
    assert (report.pruned, report.withheld, len(made.ids())) == (4, (), 3)


def test_what_could_not_be_seen_is_not_gone(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(made.folder / "shut", 2)
    save_pictures(made.folder / "open", 3, start=5)
    (made.folder / "l.jsonl").write_text('{"id": "a", "text": "a"}\n{"id": "b", "text": "b"}')
    made.index(made.folder, made.folder / "l.jsonl")
    listdir = os.listdir

    def refuse(path: bytes) -> list[bytes]:
        if os.fsencode(path).endswith(b"shut"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    (made.folder / "open" / "0005.png").unlink()
    (made.folder / "l.jsonl").write_text('{"id": "a", "text": "a"}\n{"id": "b", "tex')
    report = made.index(made.folder, made.folder / "l.jsonl", prune=True)
    assert (report.gone, report.pruned, report.reasons) == (1, 1, {"permission": 1, "bad-record": 1})
    assert report.unseen == {f"{made.folder}/": 2, f"{made.folder}/l.jsonl": 1}
    assert made.ids() == ["a", "b", "open/0006.png", "open/0007.png", "shut/0000.png", "shut/0001.png"]
    monkeypatch.undo()
    assert made.index().failed == 0
    assert list(made.ledger().values()) == ["bad-record"]  # the list was not looked at


def test_moved_collection_keeps_its_vectors(made: Collection, tmp_path: Path) -> None:
    save_pictures(made.folder, 5)
    (made.folder / "bad.png").write_bytes(b"x")
    made.index()
    moved = made.folder.rename(tmp_path / "moved")
    (moved / "bad.png").unlink()
    report = made.index(moved)
    assert (report.updated, report.encoded, len(made.table)) == (5, 0, 5)
    row = made.table.get(["0003.png"])[0]
    assert row.uri == sources.file_uri(moved / "0003.png") and (row.width, row.height) == (8, 8)
    assert made.ledger() == {}


def test_same_names_in_two_folders_are_two_items(made: Collection, tmp_path: Path) -> None:
    made.save(a="red")
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(picture("blue"))
    for run_number in range(2):  # in one run, and against the table
        report = made.index(made.folder, other)
        assert (report.added, report.unchanged, report.failed) == (2 - 2 * run_number, 2 * run_number, 0)
    assert (made.index(other, made.folder).unchanged, made.index(other).unchanged) == (2, 1)  # in any order
    first, second = sorted(row["id"] for row in made.table.rows(["id"]))
    assert first == "a.png" and re.fullmatch(r"other~[0-9a-f]{6}/a\.png", second)
    assert np.allclose(made.table.get(["a.png"])[0].vector, [0.5, 0, 0] * 4 + [0] * 4)
    (other / "b.png").write_bytes(picture("green"))
    assert made.index(other).added == 1 and len(made.table.get(["b.png"])) == 1  # no name that is taken, no prefix
    (made.folder / "a.png").unlink()
    assert made.index(other).unchanged == 2 and len(made.table.get([second])) == 1  # an id stays


def test_a_renamed_folder_leaves_no_ghost_of_an_id_that_named_it(made: Collection, tmp_path: Path) -> None:
    made.save(a="red")
    other, later = tmp_path / "other", tmp_path / "later"
    other.mkdir()
    for name, colour in (("a", "blue"), ("b", "green"), ("c", "white")):
        (other / f"{name}.png").write_bytes(picture(colour))
    made.save(c="purple")
    assert made.index(made.folder, other).added == 5
    other.rename(later)
    (later / "c.png").write_bytes(picture("yellow"))  # no longer the same file, so the old one may be elsewhere
    assert made.index(made.folder, later).gone == 1
    report = made.index(made.folder, later, prune=True)
    assert (report.gone, report.pruned, report.unchanged) == (1, 1, 5)
    at = sorted(re.sub("~[0-9a-f]{6}", "~", name) for name in made.ids())
    assert at == ["a.png", "b.png", "c.png", "later~/a.png", "later~/c.png", "other~/c.png"]


def test_a_copy_that_was_there_before_does_not_stand_for_a_vanished_folder(made: Collection, tmp_path: Path) -> None:
    made.save(a="red")
    disk = tmp_path / "disk"
    shutil.copytree(made.folder, disk)
    assert made.index(made.folder, disk).added == 2
    disk.rename(tmp_path / "unmounted")
    report = made.index(prune=True)
    assert (report.gone, report.pruned, len(made.ids())) == (0, 0, 2)


def test_same_id_from_a_list_and_a_folder_is_refused(made: Collection) -> None:
    made.save(a="red")
    assert made.index(made.folder).added == 1
    (made.folder / "l.jsonl").write_text('{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}')
    assert made.index(made.folder / "l.jsonl").reasons == {"duplicate-id": 1}


def test_the_same_path_twice_is_no_collision(made: Collection) -> None:
    made.save(a="red", b="blue")
    report = made.index(made.folder, made.folder, made.folder / "a.png")
    assert (report.added, report.failed) == (2, 0)


def test_empty_folder(made: Collection) -> None:
    report = made.index(prune=True)
    assert (report.met, report.gone, len(made.table)) == (0, 0, 0)
