"""`looktwice tune`, and what `search` makes of its file, with stand-ins for the models."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from looktwice.testing import COLORS, BrightnessScorer


@pytest.fixture
def marked(table: Path) -> Path:
    """Marks of eight queries. Right is a bright image of another colour, wrong a dark one of the colour asked for."""
    names = [*COLORS]
    pairs = [(names[i % 4], names[(i + 1) % 4], i // 4) for i in range(8)]
    with zipfile.ZipFile("marks.zip", "w") as archive:
        lines = [json.dumps({"id": f"q{i}", "text": colour}) for i, (colour, _, _) in enumerate(pairs)]
        archive.writestr("queries.jsonl", "\n".join(lines) + "\n")
        labels = [
            f"q{i} 0 {other}-{shade}.png 1\nq{i} 0 {colour}-2.png 0" for i, (colour, other, shade) in enumerate(pairs)
        ]
        archive.writestr("qrels.txt", "\n".join(labels) + "\n")
    return table


ASKED = ("tune", "t.lt", "--prompt", "match", "--shortlist", 12)


def test_what_is_chosen_is_used(looktwice: Any, marked: Path) -> None:
    made = looktwice(*ASKED, "--marks", "marks.zip", "--out", "t.json", "--calibration-out", "c.json", "--json")
    assert made.code == 0, made.err
    record = made.records[0]
    assert record["claimed"] and record["groups"] == 8 and record["gain"]["low"] > 0 and len(record["folds"]) == 5
    search = ("search", "t.lt", "green", "--json", "-k", 12, "--shortlist", 12)
    tuned = looktwice(*search, "--tuned", "t.json")
    assert tuned.code == 0, tuned.err
    assert {hit["explain"]["fusion"] for hit in tuned.records} == {record["fusion"]}
    both = looktwice(*search, "--tuned", "t.json", "--calibration", "c.json")
    assert both.code == 0 and all(0 <= hit["explain"]["calibrated"] <= 1 for hit in both.records)
    place = [hit["id"] for hit in tuned.records].index
    assert place("blue-0.png") < place("green-2.png"), "as it was marked"
    plain = [hit["id"] for hit in looktwice(*search, "--prompt", "match").records].index
    assert plain("green-2.png") < plain("blue-0.png")
    refused = looktwice(*search, "--tuned", "t.json", "--fusion", "0.5")
    assert refused.code == 2 and "--fusion" in refused.err


def test_rerank_takes_the_file_for_runs_of_the_same_encoder(looktwice: Any, marked: Path) -> None:
    assert looktwice(*ASKED, "--marks", "marks.zip", "--out", "t.json").code == 0
    Path("q.jsonl").write_text(json.dumps({"id": "q", "text": "green"}) + "\n")
    first = ("search", "t.lt", "--queries", "q.jsonl", "--no-rerank", "--run", "first.trec", "--shortlist", 12)
    assert looktwice(*first, "-k", 12).code == 0
    again = ("rerank", "first.trec", "t.lt", "--queries", "q.jsonl", "--tuned", "t.json", "--json", "-k", 12)
    done = looktwice(*again)
    assert done.code == 0, done.err
    found = [hit["id"] for hit in looktwice("search", "t.lt", "green", "--tuned", "t.json", "--json", "-k", 12).records]
    assert [hit["id"] for hit in done.records] == found
    settings = json.loads(Path("first.trec.json").read_text())
    settings["encoder"]["revision"] = "2"
    Path("first.trec.json").write_text(json.dumps(settings))
    other = looktwice(*again)
    assert other.code == 2 and "encoder" in other.err and "'revision': '2'" in other.err
    Path("first.trec.json").unlink()
    unknown = looktwice(*again)
    assert unknown.code == 2 and "first.trec.json does not name" in unknown.err


def test_a_file_for_other_models_is_refused(looktwice: Any, marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looktwice(*ASKED, "--marks", "marks.zip", "--out", "t.json").code == 0
    body = json.loads(Path("t.json").read_text())
    body["source"]["revision"] = "2"
    Path("t.json").write_text(json.dumps(body))
    done = looktwice("search", "t.lt", "green", "--tuned", "t.json")
    assert done.code == 2 and "revision '2'" in done.err


def test_no_gain_is_no_file(looktwice: Any, marked: Path) -> None:
    """Labels that the default orders right already leave nothing to gain."""
    names = [*COLORS]
    lines = [json.dumps({"id": f"q{i}", "text": names[i % 4]}) for i in range(8)]
    Path("q.jsonl").write_text("\n".join(lines) + "\n")
    Path("qrels.txt").write_text("\n".join(f"q{i} 0 {names[i % 4]}-{i // 4}.png 1" for i in range(8)) + "\n")
    done = looktwice(*ASKED, "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "t.json")
    assert done.code == 2 and "No gain can be claimed" in done.err and not Path("t.json").exists()
    assert "mAP@100" in done.out


def test_a_misspelt_measure_is_refused_before_anything_is_scored(
    looktwice: Any, scorer: BrightnessScorer, marked: Path
) -> None:
    done = looktwice(*ASKED, "--marks", "marks.zip", "--out", "t.json", "--measure", "mAPP@10")
    assert done.code == 2 and "did you mean mAP@10" in done.err
    assert not scorer.shown


def test_labels_are_needed_once(looktwice: Any, marked: Path) -> None:
    for wrong in ((), ("--marks", "marks.zip", "--qrels", "q.txt")):
        done = looktwice(*ASKED, *wrong, "--out", "t.json")
        assert done.code == 2 and "--marks" in done.err
    same = looktwice(*ASKED, "--marks", "marks.zip", "--out", "t.json", "--calibration-out", "t.json")
    assert same.code == 2 and "name two files" in same.err
