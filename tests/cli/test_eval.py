"""`looktwice eval`: a benchmark run into a folder, runs compared, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Looktwice
from PIL import Image

from looktwice.cli.renamed import current
from looktwice.evaluate import write_run
from looktwice.search.token_choice import tokens_wanted
from looktwice.testing import ColorEncoder
from looktwice.types import EncoderInfo


@pytest.fixture
def things(tmp_path, monkeypatch):
    """Three things, two pictures each."""
    monkeypatch.setattr("looktwice.experiment.run.load_encoder", lambda name, **options: ColorEncoder())
    for i, colour in enumerate(["red", "green", "blue"]):
        for j in (0, 1):
            path = tmp_path / "things" / colour / f"{j}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), tuple(200 + 20 * j if k == i else 30 for k in range(3))).save(path)
    return tmp_path / "things"


def test_a_benchmark_prints_a_table_with_intervals_and_ends_with_the_report(looktwice, things, tmp_path):
    done = looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4)
    assert done.code == 0, done.err
    assert "shortlist" in done.out and "second look" in done.out and "lost by the shortlist" in done.out
    assert done.out.splitlines()[-1] == "eval-folder/report.html"
    assert {path.name for path in (tmp_path / "eval-folder").iterdir()} >= {
        "answers.jsonl", "items.lt", "pareto.svg", "report.html", "result.json", "second-look.trec", "shortlist.trec",
    }  # fmt: skip
    again = looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--json", "--fusion", "p-only")
    (record,) = again.records
    assert record["manifest"]["fusion"] == "p-only" and record["systems"][0]["queries"] == 6


def test_tuning_is_said(looktwice, things):
    done = looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--tune-on", "40%")
    assert done.code == 0, done.err
    assert "that are not reported" in done.out


def test_runs_of_different_depth_are_named(looktwice, tmp_path):
    (tmp_path / "qrels.txt").write_text("q 0 a 1\n")
    (tmp_path / "a.trec").write_text("q Q0 a 1 0.9 t\nq Q0 b 2 0.8 t\n")
    (tmp_path / "b.trec").write_text("q Q0 a 1 0.9 t\n")
    done = looktwice("eval", "compare", "a.trec", "b.trec", "--qrels", "qrels.txt")
    assert "differ in depth (a.trec up to 2, b.trec up to 1 documents a query)" in done.err
    assert "stop at 1." in done.err
    assert "depth" not in looktwice("eval", "compare", "a.trec", "--qrels", "qrels.txt").err


def test_two_runs_are_compared(looktwice, tmp_path):
    write_run(tmp_path / "a.trec", {f"q{i}": [("x", 2.0), ("y", 1.0)] for i in range(12)})
    write_run(tmp_path / "b.trec", {f"q{i}": [("y", 2.0), ("x", 1.0)] for i in range(11)})
    (tmp_path / "qrels.txt").write_text("".join(f"q{i} 0 y 1\n" for i in range(12)) + "none 0 z 0\n")
    done = looktwice("eval", "compare", "a.trec", "b.trec", "--qrels", "qrels.txt", "--json")
    first = done.records[0]
    assert first["measure"] == "mAP@100" and first["helped"] == 11 and first["hurt"] == 1 and first["queries"] == 12
    assert first["difference"]["mean"] == pytest.approx((11 * 0.5 - 0.5) / 12) and 0 < first["p"] < 0.05
    table = looktwice("eval", "compare", "a.trec", "b.trec", "--qrels", "qrels.txt", "--measure", "success@1")
    assert "gained" in table.out and "0.917" in table.out
    assert "b.trec lacks 1 query" in table.err and "without relevant items" in table.err
    one = looktwice("eval", "compare", "a.trec", "--qrels", "qrels.txt")
    assert one.code == 0 and "gained" not in one.out


def test_odd_runs_are_counted_and_those_of_another_collection_refused(looktwice, things, tmp_path):
    assert looktwice("index", "mine.lt", things).code == 0
    run = {"q1": [("red/1.png", 2.0), ("caf\udce9.png", 1.0)], "extra": [("red/0.png", 1.0)]}
    write_run(tmp_path / "a.trec", run)
    (tmp_path / "labels.txt").write_text("q1 0 red/1.png 1\nq1 0 gone.png 1\nq2 0 blue/0.png 1\nq3 0 x 0\n")
    arguments = ("eval", "compare", "a.trec", "--qrels", "labels.txt", "--measure", "recall@5")
    done = looktwice(*arguments, "--table", "mine.lt", "--json")
    (record,) = done.records
    found = record["problems"]["a.trec"]
    assert found.pop("such_as") == {"missing": ["q2"], "unlabelled": ["extra"], "unknown": ["caf\udce9.png"]}
    assert found == {
        "queries_without_an_answer": 1, "queries_without_labels": 1, "queries_without_relevant_items": 1,
        "items_without_a_label": 1, "items": 2, "unknown_items": 1, "relevant_items_outside_the_table": 1,
    }  # fmt: skip
    assert record["runs"]["a.trec"]["mean"] == 0.25  # half of q1's two, nothing for q2
    for told in (
        "lacks, such as caf\\udce9.png",
        "1 relevant item",
        "has unlabelled 1 query",
        "without relevant items",
    ):
        assert told in done.err
    assert "unknown_items" not in looktwice(*arguments, "--json").records[0]["problems"]["a.trec"]
    write_run(tmp_path / "a.trec", {"q1": [("elsewhere/1.png", 2.0)]})
    assert "pass the table that it came from" in looktwice(*arguments, "--table", "mine.lt").err
    for other in ({"Q1": [("red/1.png", 1.0)]}, {}):
        write_run(tmp_path / "a.trec", other)
        done = looktwice(*arguments)
        assert done.code == 2 and "share no query id" in done.err


def test_a_query_id_that_occurs_twice_is_refused(looktwice, things, tmp_path):
    assert looktwice("index", "mine.lt", things).code == 0
    line = json.dumps({"id": "q1", "image": str(things / "red/0.png")}) + "\n"
    (tmp_path / "q.jsonl").write_text(2 * line)
    (tmp_path / "labels.txt").write_text("q1 0 red/1.png 1\n")
    done = looktwice("eval", "run", "table", "--table", "mine.lt", "--queries", "q.jsonl", "--qrels", "labels.txt")
    assert done.code == 2 and "'q1' 2 times" in done.err


def test_a_benchmark_asks_its_own_prompt_unless_another_is_named(looktwice, things, tmp_path, monkeypatch):
    from dataclasses import replace

    from looktwice.evaluate import datasets

    read = datasets.folder.read
    monkeypatch.setattr(datasets.folder, "read", lambda *given: replace(read(*given), prompt="landmark"))
    looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--out", "own")
    looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--out", "other", "--prompt", "object")
    asked = [json.loads((tmp_path / name / "settings.json").read_text()) for name in ("own", "other")]
    assert [settings["second_look"]["prompt"] for settings in asked] == ["landmark", "object"]
    looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--out", "true", "--score-mode", "p-true")
    second = json.loads((tmp_path / "true" / "settings.json").read_text())["second_look"]
    assert second["prompt"] == "auto" and second["score_mode"] == "p-true", "landmark asks for no True"


def test_how_the_second_look_answers_is_part_of_the_run(looktwice, things, tmp_path):
    options = ("--retrace", "causal", "--ties", "coarse", "--score-mode", "digit")
    done = looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4, "--out", "own", *options)
    settings = json.loads((tmp_path / "own" / "settings.json").read_text())
    assert done.code == 0 and settings["ties"] == "coarse"
    assert settings["second_look"].items() >= {"retrace": "causal", "score_mode": "digit"}.items()


def test_a_table_of_ones_own_is_measured(looktwice, things, tmp_path):
    assert looktwice("index", "mine.lt", things).code == 0
    lines = [{"id": "q1", "image": str(things / "red/0.png")}, {"id": "q2", "image": str(things / "blue/1.png")}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "labels.txt").write_text("q1 0 red/1.png 1\nq1 0 red/0.png -1\n")
    labelled = ("--table", "mine.lt", "--queries", "q.jsonl", "--qrels", "labels.txt")
    (record,) = looktwice("eval", "run", "table", *labelled, "--json").records
    assert record["systems"][0]["queries"] == 1 and record["systems"][0]["measures"]["success@1"]["mean"] == 1
    assert record["dataset"]["notes"] == ["queries: 1 with labels of 2"]


class Others(ColorEncoder):
    info = EncoderInfo("others", "1", "mean", 8)


@pytest.mark.parametrize("robust", [False, True])
def test_an_encoder_that_did_not_make_the_table_is_refused(looktwice, things, tmp_path, monkeypatch, robust):
    assert looktwice("index", "mine.lt", things).code == 0
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "q1", "image": str(things / "red/0.png")}) + "\n")
    (tmp_path / "labels.txt").write_text("q1 0 red/1.png 1\n")
    what = ("robustness", "table") if robust else ("run", "table")
    arguments = ("eval", *what, "--table", "mine.lt", "--queries", "q.jsonl", "--qrels", "labels.txt")
    loaded = []

    def load(name, **options):
        loaded.append(name)
        return Others() if name == "others" else ColorEncoder()

    monkeypatch.setattr("looktwice.encode.load_encoder", load)
    done = looktwice(*arguments, "--encoder", "others")
    assert done.code == 2 and "made with encoder colors" in done.err
    assert looktwice(*arguments, "--encoder", "colors", "--shortlist", 2).code == 0
    if robust:
        assert looktwice(*arguments, "--out", "o", "--shortlist", 2).code == 0
        assert loaded[-1] == "colors", "the table's own encoder"


def test_robustness_prints_a_row_per_condition(looktwice, things, monkeypatch):
    from looktwice.experiment import robustness

    kinds = {"blur": robustness.DEGRADATIONS["blur"]}
    monkeypatch.setattr(robustness, "DEGRADATIONS", kinds)
    arguments = ("eval", "robustness", "folder", "--root", things, "--shortlist", 3, "--side", "query")
    done = looktwice(*arguments)
    assert done.code == 0, done.err
    assert done.out.count("blur") == 6 and "both orders" in done.out
    assert done.out.splitlines()[-1] == "eval-robustness/robustness.json"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "The benchmark is missing; name one of: scenes, table, "),
        (["run", "roxford5k"], "pass --root FOLDER"),
        (["run", "hub:train"], "pass --root FOLDER"),
        (["run", "scene"], "Unknown benchmark 'scene'; did you mean scenes"),
        (["run", "tabel", "--qrels", "q.txt"], "did you mean table"),
        (["run", "robustness"], "use `looktwice eval robustness DATASET`"),
        (["robustness", "scene"], "did you mean scenes"),
        (["robustness", "robustness"], "is a verb, not a benchmark"),
        (["robustness", "--side", "querry"], "did you mean query"),
        (["robustness", "--table", "x.lt"], "--table has no effect for scenes"),
        (["run", "roxfrod5k", "--root", "."], "roxford5k"),
        (["run", "scenes", "--root", "."], "leave out --root"),
        (["run", "folder", "--small", "--root", "."], "one size"),
        (["run", "folder", "--root", ".", "--no-rerank", "--tune-on", "20%"], "--tune-on has no effect with"),
        (["compare", "a.trec"], "--qrels"),
        (["run", "table", "--table", "x.lt"], "--queries"),
        (["robustness", "folder", "--root", ".", "--no-rerank"], "No such option: --no-rerank"),
        (["compare", "a", "b", "c", "--qrels", "q"], "one or two different runs"),
        (["compare", "a", "a", "--qrels", "q"], "one or two different runs"),
        (["run", "roxford5k", "--root", "."], "missing: "),
        (["run", "scenes", "--measure", "nDCG@10"], "No such option: --measure"),
        (["run", "folder", "--root", ".", "--qrels", "q.txt"], "--qrels has no effect"),
        (["robustness", "--maxsim", "9", "--table", "x.lt"], "add --side query"),
        (["robustness", "--maxsim", "9", "--side", "query"], "pass --table TABLE"),
        (["robustness", "--ties", "coarse"], "No such option: --ties"),
        (["run", "scenes", "--no-rerank", "--retrace", "paper"], "--retrace has no effect with --no-rerank"),
        (["run", "scenes", "--no-rerank", "--fusion", "0.3"], "--fusion has no effect with --no-rerank"),
        (["run", "scenes", "--ties", "papr"], "did you mean paper"),
        (["run", "scenes", "--score-mode", "digits"], "did you mean digit"),
        (["run", "table", "--small"], "--small has no effect"),
        (["compare", "a.trec", "--qrels", "q.txt", "--out", "there"], "No such option: --out"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_way_out(looktwice, arguments, complaint):
    done = looktwice("eval", *arguments)
    assert done.code == 2 and complaint in done.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["folder", "--root", "."], ["run", "folder", "--root", "."]),
        (["--root", ".", "folder"], ["run", "--root", ".", "folder"]),
        (["--run", "a", "--run=b", "--qrels", "q"], ["compare", "a", "b", "--qrels", "q"]),
        (["robustness", "--on", "table", "--small"], ["robustness", "table", "--small"]),
    ],
)
def test_the_form_of_the_version_before_works_and_says_what_it_is_called_now(old, new, capsys):
    assert current(["eval", *old]) == ["eval", *new]
    assert "is now called `eval " in capsys.readouterr().err
    assert current(["eval", *new]) == ["eval", *new] and capsys.readouterr().err == ""


def test_old_benchmark_names_still_run(looktwice, things):
    done = looktwice("eval", "folder", "--root", things, "--shortlist", 4)
    assert done.code == 0 and "`eval NAME` is now called `eval run NAME`" in done.err


def test_a_file_that_cannot_be_read_ends_with_exit_code_3(looktwice, things):
    (things / "broken.jpg").write_bytes(b"no picture")
    done = looktwice("eval", "run", "folder", "--root", things, "--shortlist", 4)
    assert done.code == 3 and "1 item could not be indexed" in done.err
    assert json.loads((things.parent / "eval-folder/result.json").read_text())["unreadable_items"] == 1


def test_the_old_name_for_reading_images_works_and_says_the_new_one(capsys):
    assert current(["search", "t.lt", "q.jpg", "--codec", "pictures"])[-1] == "images"
    assert "`--codec pictures` is now called `--codec images`" in capsys.readouterr().err
    with pytest.warns(DeprecationWarning, match="images"):
        assert tokens_wanted("pictures") == "images"


@pytest.mark.parametrize("verb", ["run", "robustness"])
def test_labels_of_other_ids_are_named_as_the_problem(looktwice: Looktwice, table: Path, verb: str) -> None:
    Path("q.jsonl").write_text('{"id": "q", "text": "red"}\n')
    Path("qrels.txt").write_text("q 0 mug 1\nq 0 cup 2\n")
    done = looktwice("eval", verb, "table", "--table", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt")
    assert done.code == 2 and "qrels.txt names items that t.lt does not have ('cup', 'mug');" in done.err, done
    assert "write the ids in qrels.txt as the table does ('" in done.err and "--table" not in done.err
