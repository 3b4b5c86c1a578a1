"""`looktwice demo` on a small gallery, with stand-ins for the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from looktwice.testing import ColorEncoder, make_images


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Twelve pictures and one query."""
    make_images(tmp_path / "gallery" / "images")
    (tmp_path / "gallery" / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "red"}) + "\n")
    (tmp_path / "gallery" / "qrels.txt").write_text("q 0 red-0.png 1\n")
    return tmp_path / "gallery"


def test_with_json_every_line_is_json(looktwice: Any, gallery: Path) -> None:
    done = looktwice("demo", "out", "--gallery", gallery, "--json")
    assert done.code == 0
    *rows, last = done.records
    assert [row["ranking"] for row in rows] == ["first look", "second look"] and last == {"report": "out/report.html"}
    assert looktwice("demo", "out", "--gallery", gallery).out.splitlines()[-1] == "out/report.html"


def test_the_encoder_runs_where_it_was_told_to(looktwice: Any, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[dict[str, str]] = []
    monkeypatch.setattr(
        "looktwice.experiment.demo.load_encoder", lambda name, **options: placed.append(options) or ColorEncoder()
    )
    assert looktwice("demo", "out", "--gallery", gallery, "--device", "cpu", "--dtype", "float32").code == 0
    assert placed == [{"device": "cpu", "dtype": "float32"}]


def test_a_gallery_without_a_readable_query_is_refused(looktwice: Any, gallery: Path) -> None:
    (gallery / "queries.jsonl").write_text(json.dumps({"id": "q", "image": "gone.png"}) + "\n")
    done = looktwice("demo", "out", "--gallery", gallery)
    assert done.code == 2 and "has no readable query" in done.err
