"""`looktwice calibrate`, and what `search` makes of it, with stand-ins for the models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from looktwice.testing import COLORS, BrightnessScorer, make_images


@pytest.fixture
def labelled(looktwice: Any, tmp_path: Path) -> Path:
    """A table of 12 pictures; each colour is asked for, and its two brightest pictures are relevant."""
    make_images(tmp_path / "pictures")
    assert looktwice("index", "t.lt", "pictures").code == 0
    colours = list(COLORS)
    lines = [json.dumps({"id": name, "text": name}) for name in colours]
    Path("q.jsonl").write_text("\n".join(lines), encoding="utf-8")
    labels = [f"{name} 0 {name}-{i}.png 1" for name in colours for i in range(2)]
    Path("qrels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return tmp_path


def test_what_is_learned_is_used(looktwice: Any, labelled: Path) -> None:
    made = looktwice(
        "calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "c.json", "--prompt", "match",
        "--shortlist", 12, "--json",
    )  # fmt: skip
    assert made.code == 0 and made.records[0]["pairs"] == 48 and made.records[0]["relevant"] == 8
    assert "ece_before" in made.records[0] and "Calibration: c.json" in made.err
    asked = ("search", "t.lt", "red", "--prompt", "match", "--calibration", "c.json", "--json", "-k", 12)
    found = looktwice(*asked, "--shortlist", 12)
    assert found.code == 0 and all(0 < hit["explain"]["calibrated"] < 1 for hit in found.records)
    early = looktwice(*asked, "--shortlist", 12, "--budget", "auto:0.9@1")
    assert early.code == 0 and sum(hit["scored"] for hit in early.records) == 8
    refused = looktwice(*asked, "--min-precision", "0.99")
    assert refused.code == 2 and "cannot promise a precision of 0.99" in refused.err


def test_people_read_how_wrong_p_was_and_is(looktwice: Any, labelled: Path) -> None:
    asked = ("--queries", "q.jsonl", "--qrels", "qrels.txt", "--prompt", "match", "--shortlist", 12)
    done = looktwice("calibrate", "t.lt", *asked, "--out", "c.json")
    said = re.search(r"Calibration error \(ECE\): \d\.\d{4} before, (\d\.\d{4} after|unknown)", done.err)
    assert done.code == 0 and said is not None, done.err
    assert "{" not in done.err
    calibration = json.loads(Path("c.json").read_text())
    calibration["thresholds"] = {"0.9": 1.0}
    Path("c.json").write_text(json.dumps(calibration))
    none = looktwice("search", "t.lt", "red", "--prompt", "match", "--calibration", "c.json", "--min-precision", "0.9")
    assert none.code == 0 and "leave out --min-precision to see all" in none.err, none.err


def test_a_budget_without_labels_is_refused(looktwice: Any, labelled: Path) -> None:
    done = looktwice("search", "t.lt", "red", "--budget", "auto:0.01")
    assert done.code == 2 and "looktwice calibrate" in done.err
    done = looktwice("search", "t.lt", "red", "--ties", "papr")
    assert done.code == 2 and "did you mean paper" in done.err
    done = looktwice("search", "t.lt", "red", "--direction", "image-to-image")
    assert done.code == 2 and "image" in done.err


def test_explain_says_what_a_score_is_made_of(looktwice: Any, labelled: Path) -> None:
    done = looktwice("search", "t.lt", "red", "-k", 2, "--explain", "--direction", "text-to-image")
    assert done.code == 0 and "(fusion 0.5)" in done.out
    first = next(line for line in done.out.splitlines() if line.startswith("1 red-"))
    assert "First look: cosine" in first and "place 1." in first and "Second look: p = " in first
    assert "from the first look + " in first and "from the second" in first


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    looktwice: Any, labelled: Path, scorer: BrightnessScorer
) -> None:
    done = looktwice("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "no/c.json")
    assert done.code == 2 and "Folder no does not exist, so c.json cannot be written" in done.err
    Path("there").mkdir()
    done = looktwice("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "there")
    assert done.code == 2 and "there is a folder" in done.err and scorer.shown == []
    assert not list(Path().glob("there.*"))


def test_an_interrupted_calibration_goes_on_where_it_stopped(
    looktwice: Any, labelled: Path, scorer: BrightnessScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "c.json", "--json")
    whole = looktwice(*asked, "--shortlist", 12)
    assert whole.code == 0 and len(scorer.shown) == 48
    score = BrightnessScorer.score

    def stopped(self: BrightnessScorer, query: Any, candidates: Any) -> Any:
        if query.id == "blue":
            raise KeyboardInterrupt
        return score(self, query, candidates)

    with monkeypatch.context() as patch:
        patch.setattr(BrightnessScorer, "score", stopped)
        done = looktwice(*asked, "--shortlist", 12)
    assert done.code == 130 and "run the same command again" in done.err
    assert Path("c.json.scores").exists() and len(scorer.shown) == 48 + 24
    again = looktwice(*asked, "--shortlist", 12)
    assert again.code == 0 and again.out == whole.out and len(scorer.shown) == 48 + 48, "no pair twice"
    assert "Continuing an interrupted run" in again.err and not list(Path().glob("c.json.*"))


def test_a_query_that_cannot_be_read_is_told(looktwice: Any, labelled: Path) -> None:
    lines = [json.dumps({"id": "gone", "image": "gone.png"}), json.dumps({"id": "unlabelled", "image": "gone.png"})]
    Path("q.jsonl").write_text(Path("q.jsonl").read_text("utf-8") + "\n" + "\n".join(lines), encoding="utf-8")
    Path("qrels.txt").write_text(Path("qrels.txt").read_text("utf-8") + "gone 0 x 1\n", encoding="utf-8")
    done = looktwice("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "c.json")
    assert done.code == 3 and Path("c.json").exists()
    assert "Query gone was skipped: missing" in done.err and "unlabelled" not in done.err


def test_queries_of_two_kinds_are_refused_before_all_are_scored(
    looktwice: Any, scorer: BrightnessScorer, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Composed(BrightnessScorer):
        def settings(self) -> Any:
            return {**super().settings(), "prompt": "composed"}

    monkeypatch.setattr(BrightnessScorer, "with_prompt", lambda self, prompt: Composed(), raising=False)
    line = {"id": "last", "image": "pictures/red-1.png", "text": "but green"}
    Path("q.jsonl").write_text(Path("q.jsonl").read_text("utf-8") + "\n" + json.dumps(line), encoding="utf-8")
    Path("qrels.txt").write_text(Path("qrels.txt").read_text("utf-8") + "last 0 green-0.png 1\n", encoding="utf-8")
    done = looktwice("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "c.json")
    assert done.code == 2 and "one prompt for all" in done.err and "of one kind" in done.err
    assert len(scorer.shown) == 12, "one query of words, then the other kind"


CALIBRATE = ("calibrate", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--out", "c.json")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("another 0 red-0.png 1\n", "labels for 0 queries of the file"),
        ("red 0 red-0.png 1\nanother 0 red-1.png 1\n", "labels for 1 query of the file"),
        (
            "red 0 missing.png 1\nblue 0 red-0.png 0\n",
            "qrels.txt names items that t.lt does not have ('missing.png'); write the ids in qrels.txt as the",
        ),
        ("red 0 red-0.png 0\nblue 0 red-0.png 0\n", "none of these labels is above 0"),
    ],
)
def test_useless_labels_are_refused_before_anything_is_scored(
    looktwice: Any, labelled: Path, scorer: BrightnessScorer, labels: str, message: str
) -> None:
    Path("qrels.txt").write_text(labels, encoding="utf-8")
    done = looktwice(*CALIBRATE)
    assert done.code == 2 and message in done.err
    assert scorer.shown == [] and not list(Path().glob("c.json*"))


def test_a_refused_calibration_names_the_query_and_leaves_nothing_behind(
    looktwice: Any, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from looktwice.errors import UsageError

    done_before = {"queries": 1}
    score = BrightnessScorer.score

    def refused(self: BrightnessScorer, query: Any, candidates: Any) -> Any:
        if query.id == list(COLORS)[done_before["queries"]]:
            raise UsageError("The prompt cannot show this; choose another.")
        return score(self, query, candidates)

    monkeypatch.setattr(BrightnessScorer, "score", refused)
    done = looktwice(*CALIBRATE)
    assert done.code == 2 and "Error: Query 'green': The prompt cannot show this; choose another." in done.err
    assert not list(Path().glob("c.json*"))
    with pytest.MonkeyPatch.context() as patch:  # much work done: worth keeping
        patch.setattr("looktwice.cli.resume._FEW", 0)
        done = looktwice(*CALIBRATE)
        assert "The scores so far are kept in c.json.scores" in done.err and Path("c.json.scores").exists()
    looktwice(*CALIBRATE)
    assert Path("c.json.scores").exists()  # of an earlier run: not ours to remove
