"""What `index` reads in folders: other kinds, excluded files, accepted failures, and files that change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Looktwice
from PIL import Image

from looktwice.cli.folders import among
from looktwice.sources import scan
from looktwice.sources.formats import Extra


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no extra were installed."""
    monkeypatch.setattr(Extra, "installed", property(lambda self: False))


def test_kinds_that_need_extras_are_counted_listed_and_no_failures(
    looktwice: Looktwice, pictures: Path, lacking: None
) -> None:
    for name in ("a.pdf", "b.pdf", "c.MOV", "d.nef", "e.txt"):
        (pictures / name).write_bytes(b"x")
    done = looktwice("index", "t.lt", pictures)
    assert done.code == 0 and "12 added" in done.out
    assert "4 files need extras (1 raw, 2 PDF, 1 video)" in done.err
    assert "pip install 'looktwice[raw,pdf,video]'" in done.err and "1 file that holds no image" in done.err
    again = looktwice("index", "t.lt", pictures, "--json").records[0]
    assert again["skipped"] == {"needs-pdf": 2, "needs-video": 1, "needs-raw": 1} and again["failed"] == 0
    assert "No item has failed" in looktwice("ledger", "t.lt").err
    listed = looktwice("ledger", "t.lt", "--skipped", "--json").records
    assert sorted(Path(one["uri"]).name for one in listed) == ["a.pdf", "b.pdf", "c.MOV", "d.nef"]
    assert {one["stage"] for one in listed} == {"skipped"}
    (pictures / "d.nef").unlink()
    looktwice("index", "t.lt", pictures)
    assert len(looktwice("ledger", "t.lt", "--skipped", "--json").records) == 3


def test_pages_are_indexed_and_found_gone(looktwice: Looktwice, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pages = [Image.new("RGB", (100, 80), colour) for colour in ("red", "green", "blue")]
    pages[0].save(tmp_path / "in" / "a.pdf", save_all=True, append_images=pages[1:])
    assert looktwice("index", "t.lt", tmp_path / "in", "--json").records[0]["added"] == 3
    assert looktwice("index", "t.lt", tmp_path / "in", "--json").records[0]["unchanged"] == 3
    query = tmp_path / "q.png"
    Image.new("RGB", (50, 40), "green").save(query)
    hit = looktwice("search", "t.lt", query, "-k", "1", "--no-rerank", "--json").records[0]
    assert hit["id"] == "a.pdf#page=2"
    pages[0].save(tmp_path / "in" / "a.pdf", save_all=True, append_images=pages[1:2])
    report = looktwice("index", "t.lt", tmp_path / "in", "--prune", "--json").records[0]
    assert (report["gone"], report["pruned"], report["items"]) == (1, 1, 2)


def test_exclude(looktwice: Looktwice, pictures: Path) -> None:
    done = looktwice("index", "t.lt", pictures, "--exclude", "red-*", "--exclude", "*-0.png", "--json")
    assert done.records[0]["added"] == 6
    (pictures / ".looktwiceignore").write_text("blue*\n")
    pruned = looktwice("index", "t.lt", pictures, "--exclude", "red-*", "--prune", "--json").records[0]
    assert (pruned["added"], pruned["pruned"], pruned["items"]) == (2, 2, 6)


def test_accepted_failures_count_no_more(looktwice: Looktwice, pictures: Path) -> None:
    (pictures / "dead.png").symlink_to("nowhere.png")
    (pictures / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert looktwice("index", "t.lt", pictures).code == 3
    assert looktwice("ledger", "t.lt", "--accept", "--reason", "dangling-link").code == 0
    done = looktwice("index", "t.lt", pictures)
    assert done.code == 3 and "1 failed, 1 accepted" in done.out
    looktwice("ledger", "t.lt", "--accept")
    for _ in range(2):
        done = looktwice("index", "t.lt", pictures, "--json")
        assert done.code == 0 and (done.records[0]["failed"], done.records[0]["accepted"]) == (0, 2)
    stages = {one["stage"] for one in looktwice("ledger", "t.lt", "--json").records}
    assert stages == {"accepted:scan", "accepted:decode"}
    (pictures / "bad.png").write_bytes(b"no image at all")
    assert looktwice("index", "t.lt", pictures).code == 3  # another reason was not accepted
    reasons = {(one["stage"], one["reason"]) for one in looktwice("ledger", "t.lt", "--json").records}
    assert reasons == {("accepted:scan", "dangling-link"), ("decode", "not-an-image")}
    Image.new("RGB", (9, 9), "red").save(pictures / "bad.png")
    (pictures / "dead.png").unlink()
    assert looktwice("index", "t.lt", pictures).code == 0
    assert looktwice("ledger", "t.lt", "--json").records == []


def test_only_changed_files_are_looked_at(pictures: Path) -> None:
    names = {os.fsencode(pictures / "red-0.png"), os.fsencode(pictures / "no.png")}
    assert [one.id for one in among(scan([pictures]), names)] == ["red-0.png"]


def test_watch_keeps_a_table_current(tmp_path: Path, pictures: Path) -> None:
    command = [sys.executable, "-m", "looktwice", "index", str(pictures / "t.lt"), str(pictures), "--watch", "--prune"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert "12 added" in running.stdout.readline()
            running.stdout.readline()
            time.sleep(1)  # until the watch has begun
            Image.new("RGB", (9, 9), "pink").save(pictures / "new.png")
            assert "1 added" in running.stdout.readline()
            running.stdout.readline()
            (pictures / "red-0.png").unlink()
            assert "1 pruned" in running.stdout.readline()
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
