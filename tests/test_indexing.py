"""Indexing: every item once, every failure in the ledger, nothing encoded twice."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import active_count

import numpy as np
import pytest
from colour_encoder import ColourEncoder, picture, save_pictures
from PIL import Image

from looktwice import indexing, sources
from looktwice.errors import Mismatch, ModelError, StoreError, TooManyFailures, UsageError
from looktwice.indexing import IndexReport, committing, encoding, index
from looktwice.indexing.failures import Failures
from looktwice.indexing.seen import Hashes, Seen
from looktwice.sources import Source, images, prefetch, scan
from looktwice.store import LedgerEntry, Table
from looktwice.types import Item


class Collection:
    """A folder of pictures and its table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pictures"
        self.folder.mkdir()
        self.encoder = ColourEncoder()
        self.table = Table.create(folder / "t.lt", self.encoder.info, {"year": int})

    def save(self, **colours: str) -> None:
        for name, colour in colours.items():
            (self.folder / f"{name}.png").write_bytes(picture(colour))

    def index(self, *paths: Path, **options: object) -> IndexReport:
        """Index the folder; the encoder counts only this run's work."""
        self.encoder = options.pop("encoder", None) or ColourEncoder()
        found = scan([os.fspath(path) for path in paths or [self.folder]], roots=self.table.manifest.roots)
        report = index(self.table, found, self.encoder, **options)
        assert report.met == report.added + report.updated + report.unchanged + report.failed
        assert sum(report.reasons.values()) == report.failed
        return report

    def ids(self) -> list[str]:
        return sorted(self.table.hashes())

    def ledger(self) -> dict[str, str]:
        """Name -> reason; every reason must be one that the docs list."""
        known = {**images.REASONS, **sources.REASONS, **indexing.REASONS}
        entries = list(self.table.ledger)
        assert all(entry.reason in known and entry.detail and entry.root for entry in entries)
        return {entry.uri.rstrip("/").rpartition("/")[2]: entry.reason for entry in entries}


@pytest.fixture
def made(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


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
    records = [
        {"id": "a", "image": "no.png", "text": "one"},
        {"id": "b", "image": "no.png", "text": "two"},
        {"id": "c", "image": "pictures/good.png", "year": "soon"},
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

    nowhere = f"{tmp_path}/no.png: the file does not exist any more"
    for _ in range(2):
        assert told(*records) == {
            "a": ("missing", f"line 1, id 'a', {nowhere}"),
            "b": ("missing", f"line 2, id 'b', {nowhere}"),
            "c": ("bad-record", told(*records)["c"][1]),
        }
    assert told(*records)["c"][1].startswith(f"line 3, id 'c', {made.folder}/good.png: ")
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
        "c": "bad-record",
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
    monkeypatch.setattr(committing, "COMMIT_ROWS", 1)
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
    monkeypatch.setattr(committing, "COMMIT_ROWS", 2)  # the copy may be in the table already, or only in this batch
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
    assert (report.added, report.reasons) == (1, {"bad-record": 1})
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
        if path.endswith(b"shut"):
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


def test_same_id_from_two_places_is_refused(made: Collection, tmp_path: Path) -> None:
    made.save(a="red")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(picture("blue"))
    for run_number in range(2):  # in one run, and against the table
        report = made.index(made.folder, tmp_path / "other")
        assert (report.added, report.unchanged) == (1 - run_number, run_number)
        assert report.reasons == {"duplicate-id": 1}
    report = made.index(tmp_path / "other", made.folder)
    assert report.reasons == {"duplicate-id": 1}  # whoever was there first stays
    assert np.allclose(made.table.get(["a.png"])[0].vector, [0.5, 0, 0] * 4 + [0] * 4)
    assert str(made.folder / "a.png") in next(iter(made.table.ledger)).detail
    (made.folder / "l.jsonl").write_text('{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}')
    assert made.index(made.folder / "l.jsonl").reasons == {"duplicate-id": 1}


def test_the_same_path_twice_is_no_collision(made: Collection) -> None:
    made.save(a="red", b="blue")
    report = made.index(made.folder, made.folder, made.folder / "a.png")
    assert (report.added, report.failed) == (2, 0)


def test_empty_folder(made: Collection) -> None:
    report = made.index(prune=True)
    assert (report.met, report.gone, len(made.table)) == (0, 0, 0)


def test_max_failures(made: Collection) -> None:
    save_pictures(made.folder, 20)
    for number in range(5, 9):
        (made.folder / f"{number:04}.png").write_bytes(b"x")
    assert made.index(max_failures=4).failed == 4
    made.table.delete(where="true")
    with pytest.raises(TooManyFailures, match="3 items failed, more than the 2 allowed"):
        made.index(max_failures=2, batch_size=2)
    assert made.ids() == [f"{number:04}.png" for number in range(4)]  # whole batches before it are kept
    assert len(made.ledger()) == 4 or len(made.ledger()) == 3


def test_another_encoder_is_refused(made: Collection) -> None:
    made.save(a="red")
    with pytest.raises(Mismatch, match=r"revision 1.*revision 2"):
        made.index(encoder=ColourEncoder(revision="2"))
    assert len(made.table) == 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"threads": 0}])
def test_senseless_settings(made: Collection, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        made.index(**options)


def test_only_a_scan_can_be_pruned(made: Collection) -> None:
    with pytest.raises(UsageError, match=r"scan\(\)"):
        index(made.table, [], ColourEncoder(), prune=True)


class Picky(ColourEncoder):
    """Refuses some items, as image processors refuse odd shapes."""

    def __init__(self, refuses: str, error: type[Exception] = ValueError) -> None:
        super().__init__()
        self.refuses, self.error = refuses, error

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        if any(self.refuses in item.id for item in items):
            raise self.error("aspect ratio must be below 200")
        return super().encode(items)


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_item_that_the_encoder_refuses(made: Collection, error: type[Exception]) -> None:
    save_pictures(made.folder, 10)
    report = made.index(encoder=Picky("0004", error))
    assert (report.added, report.encoded, made.ledger()) == (9, 9, {"0004.png": "encoder"})


def test_nothing_but_refused_items_is_no_broken_encoder(made: Collection) -> None:
    """As on every run after the first, where all else is unchanged."""
    save_pictures(made.folder, 14)
    assert made.index(encoder=Picky("001")).added == 9
    for prune in (False, True):
        report = made.index(encoder=Picky("001"), prune=prune)
        assert (report.unchanged, report.failed) == (9, 5)
    assert set(made.ledger().values()) == {"encoder"} and len(made.ledger()) == 5


def test_encoder_that_refuses_everything_stops_the_run(made: Collection) -> None:
    save_pictures(made.folder, 3)
    with pytest.raises(ModelError, match="aspect ratio"):
        made.index(encoder=Picky(""))
    assert made.ledger() == {}


def test_encoder_with_the_wrong_shape(made: Collection) -> None:
    class Wrong(ColourEncoder):
        def encode(self, items: Sequence[Item]) -> np.ndarray:
            return super().encode(items)[:-1]

    save_pictures(made.folder, 3)
    with pytest.raises(UsageError, match="for 3 items"):
        made.index(encoder=Wrong())


def test_interrupt_keeps_what_is_encoded(made: Collection) -> None:
    class Interrupted(ColourEncoder):
        def encode(self, items: Sequence[Item]) -> np.ndarray:
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().encode(items)

    save_pictures(made.folder, 20)
    with pytest.raises(KeyboardInterrupt):
        made.index(encoder=Interrupted(), batch_size=4)
    assert len(made.table) == 12
    report = made.index(batch_size=4)
    assert (report.added, report.unchanged, report.encoded) == (8, 12, 8)


def test_disk_full(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(made.folder, 20)
    monkeypatch.setattr(committing, "COMMIT_ROWS", 5)
    add = Table.add

    def full(table: Table, rows: object) -> None:
        if len(table) >= 10:
            with run_lance_errors(table):
                raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /x/y.rs:1:2")
        add(table, rows)

    from looktwice.store.lance import plain_errors

    def run_lance_errors(table: Table) -> object:
        return plain_errors(table.path, "adding items")

    monkeypatch.setattr(Table, "add", full)
    with pytest.raises(StoreError, match=r"^The disk is full.*run it again\.$"):
        made.index(batch_size=5)
    monkeypatch.undo()
    assert len(made.table) == 10
    assert made.index().added == 10


def test_progress_counts_up(made: Collection) -> None:
    save_pictures(made.folder, 25)
    (made.folder / "bad.png").write_bytes(b"x")
    met = []
    made.index(batch_size=10, progress=lambda report: met.append(report.met))
    assert met == sorted(met) and met[-1] == 26 and len(met) >= 3


def test_large_pictures_close_a_batch_early(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH_PIXELS", 200)
    for number in range(6):
        (made.folder / f"{number}.png").write_bytes(picture((number + 1, 0, 9), (10, 10)))
    made.index()
    assert [len(call) for call in made.encoder.calls] == [2, 2, 2]


def test_few_decoded_pictures_wait(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the encoder, threads do not fill the memory with decoded pictures."""
    from looktwice.indexing import reading

    save_pictures(made.folder, 60)
    monkeypatch.setattr(prefetch, "AHEAD_PIXELS", 64 * 4)  # pictures of 8 x 8
    begun = []
    load = reading.load
    monkeypatch.setattr(reading, "load", lambda *one: (begun.append(1), load(*one))[1])
    plan = [(source, None) for source in scan([made.folder])]
    for taken, _ in enumerate(reading.load_ahead(plan, threads=3), 1):
        time.sleep(0.005)
        assert len(begun) - taken <= 5 + 3  # five are over the limit, and each thread may have begun one more
    assert taken == len(begun) == 60


def test_reading_stops_with_the_run(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for room must not keep the process alive when the encoder has failed."""
    from looktwice.indexing import reading

    save_pictures(made.folder, 60)
    monkeypatch.setattr(prefetch, "AHEAD_PIXELS", 64)
    before = active_count()
    stream = reading.load_ahead([(source, None) for source in scan([made.folder])], threads=3)
    next(stream)
    stream.close()
    assert active_count() == before


def test_sources_of_ones_own(made: Collection) -> None:
    own = [Source(str(n), "", "", f"word {n}", {"year": n}, picture=False) for n in range(5)]
    assert index(made.table, own, ColourEncoder()).added == 5
    assert index(made.table, own, ColourEncoder()).unchanged == 5


def test_not_utf8_names_are_indexed_and_read_again(made: Collection) -> None:
    raw = os.fsencode(made.folder) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(picture("red"))
    assert made.index().added == 1
    (row,) = made.table.get(["//caf%E9.png"])
    assert sources.read_uri(row.uri, sha256=row.sha256) == picture("red")


def test_orientation_reaches_the_encoder(made: Collection) -> None:
    upper_red = Image.new("RGB", (8, 8), "blue")
    upper_red.paste("red", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    upper_red.rotate(180).save(made.folder / "a.png", exif=exif)
    made.index()
    assert np.allclose(made.table.get(["a.png"])[0].vector[:6], [0.5, 0, 0, 0.5, 0, 0])


def test_seen_and_hashes() -> None:
    seen = Seen()
    assert seen.add("it's", "u") is None and seen.add("it's", "v") == "u"
    assert "it's" in seen and "its" not in seen
    seen.close()
    sums = [f"{n * 7919:064x}"[::-1] for n in range(100)]
    hashes = Hashes(sums[:50])
    hashes.add(sums[50:75])
    assert [one in hashes for one in sums] == [True] * 75 + [False] * 25
    assert sums[0] not in Hashes()


def test_no_room_for_temporary_files_is_said() -> None:
    seen = Seen()
    seen._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StoreError, match="SQLITE_TMPDIR"):
        for number in range(100_000):
            seen.add(f"id {number}", "file:///somewhere")
    seen.close()


def test_hashes_grow_in_order_and_quickly() -> None:
    zero, *sums = ["0" * 64, *(f"{number * 2654435761 % 2**64:016x}{number:048x}" for number in range(400))]
    hashes = Hashes(sums[:100])
    hashes.add([zero, *sums[50:300], *sums[:9]])
    hashes.add([sums[301], zero])
    assert all(one in hashes for one in [zero, *sums[:300], sums[301]]) and sums[300] not in hashes
    assert np.all(np.diff(hashes._known.astype(object)) > 0)
    hashes._known = np.arange(4_000_000, dtype=np.uint64) << np.uint64(20)
    begin = time.perf_counter()
    hashes.add(sums)
    assert time.perf_counter() - begin < 1  # a union of all took ten times that
