"""The middle look on the command line, with the bundled models: searched with, probed, evaluated, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import run

from looktwice.cli import maxsim
from looktwice.experiment.demo import bundled_gallery


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes of the gallery with their visual tokens, and a query."""
    folder = tmp_path_factory.mktemp("maxsim")
    (folder / "scenes").mkdir()
    for path in sorted((bundled_gallery() / "images").glob("*.jpg"))[:12]:
        shutil.copy(path, folder / "scenes" / path.name)
    shutil.copy(bundled_gallery() / "queries" / "p00.jpg", folder / "query.jpg")
    asked = {"id": "q", "image": str(folder / "query.jpg")}
    (folder / "q.jsonl").write_text(json.dumps(asked) + "\n")
    code, _, err = run("index", folder / "t.lt", folder / "scenes", "--mllm", "tiny-vl", "--codec", "int8", "--json")
    assert code == 0, err
    return folder


def test_a_tower_serves_the_middle_look_without_an_mllm(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "t.lt", tmp_path / "t.lt", symlinks=True)
    code, out, err = run("add-tokens", tmp_path / "t.lt", "--tower", "own", "--codec", "none", "--json")
    assert code == 0 and json.loads(out)["encoded"] == 12, err
    asked = ("search", tmp_path / "t.lt", place / "query.jpg", "--maxsim", "12", "--json")
    code, out, err = run(*asked, "--no-rerank", "--maxsim-codec", "patches:tiny-clip")
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and all(hit["maxsim"] is not None and hit["p"] is None for hit in hits), err
    code, _, err = run(*asked, "--codec", "none")
    assert code == 2 and "stored codec" in err, "the second look cannot be shown patch tokens"
    code, _, err = run("add-tokens", tmp_path / "t.lt", "--tower", "own", "--mllm", "tiny-vl")
    assert code == 2 and "--mllm has no effect with --tower" in err


def test_search_shows_the_third_score_and_what_matched(place: Path, tmp_path: Path) -> None:
    asked = ("search", place / "t.lt", place / "query.jpg", "--maxsim", "12", "--shortlist", "3", "-k", "5")
    code, out, err = run(*asked, "--json", "--explain", "--report", tmp_path / "r.html")
    assert code == 0, err
    hits = [json.loads(line) for line in out.splitlines()]
    assert all(isinstance(hit["maxsim"], float) for hit in hits) and len(hits[0]["explain"]["matches"]) == 6
    assert [hit["scored"] for hit in hits] == [True] * 3 + [False] * 2 and "12 matched" in err
    page = (tmp_path / "r.html").read_text()
    assert "What matched what" in page and ">maxsim<" in page
    code, out, _ = run(*asked, "--explain")
    assert out.split("\n", 1)[0].split() == ["#", "id", "score", "coarse", "maxsim", "p", "moved"]
    assert "its heaviest tokens" in out


def test_it_takes_a_preset_and_a_rule_for_examples_without_a_second_look(place: Path) -> None:
    scenes = [place / "scenes" / f"scene-00{number}.jpg" for number in (1, 4)]
    asked = ("search", place / "t.lt", scenes[0], "--like", scenes[1], "--maxsim", "12", "--no-rerank", "--json")
    found = {}
    for rule in ("max", "mean"):
        code, out, err = run(*asked, "--examples", rule, "--preset", "laptop", "--mllm", "tiny-vl")
        assert code == 0 and "Preset laptop stands for" in err, err
        found[rule] = {hit["id"]: hit["maxsim"] for hit in map(json.loads, out.splitlines())}
    assert found["max"] != found["mean"] and all(found["max"][id_] >= at for id_, at in found["mean"].items())
    code, _, err = run(*asked[:5], "--no-rerank", "--examples", "max")
    assert code == 2 and "--examples has no effect with --no-rerank" in err


def test_it_runs_without_a_second_look(place: Path) -> None:
    asked = ("search", place / "t.lt", place / "scenes" / "scene-004.jpg", "--maxsim", "12", "--no-rerank", "--json")
    code, out, err = run(*asked)
    assert code == 0, err
    hits = [json.loads(line) for line in out.splitlines()]
    assert all(hit["p"] is None and hit["score"] == hit["maxsim"] for hit in hits)
    code, closer, err = run(*asked, "--zoom")
    assert code == 0 and [json.loads(line)["maxsim"] for line in closer.splitlines()] != [h["maxsim"] for h in hits]
    assert run(*asked, "--no-zoom")[1] == out


def test_rerank_takes_a_shortlist_of_another_system(place: Path, tmp_path: Path) -> None:
    names = [path.name for path in sorted((place / "scenes").iterdir())]
    lines = [f"q Q0 {name} {rank} {1 - rank / 50} other" for rank, name in enumerate(names, 1)]
    (tmp_path / "in.trec").write_text("\n".join(lines) + "\n")
    shared = (tmp_path / "in.trec", place / "t.lt", "--queries", place / "q.jsonl", "--shortlist", "2", "--json")
    code, out, err = run("rerank", *shared, "--maxsim", "12")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert sum(hit["scored"] for hit in found) == 2 and all("maxsim" in hit for hit in found)
    refused = (tmp_path / "in.trec", place / "scenes", "--queries", place / "q.jsonl", "--maxsim", "12")
    code, _, err = run("rerank", *refused)
    assert code == 2 and "--maxsim has no effect with a folder" in err


def test_a_probe_is_kept_with_the_table(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "t.lt", tmp_path / "t.lt")
    code, out, _ = run("maxsim", tmp_path / "t.lt", "--json")
    assert code == 0 and json.loads(out) == {
        "mllm": "tiny-vl", "codec": "int8", "crops": False, "sample": 12, "verdict": "not probed",
    }  # fmt: skip
    code, out, err = run("maxsim", tmp_path / "t.lt", "--probe", "--keep", "--queries", "3", "--depth", "6", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["queries"] == 3 and found["pairs"] == 18 and found["verdict"] in ("helps", "hurts", "unclear")
    code, out, _ = run("maxsim", tmp_path / "t.lt", "--json")
    assert json.loads(out)["verdict"] == found["verdict"]
    code, _, err = run("maxsim", tmp_path / "t.lt", "--keep")
    assert code == 2 and "add --probe" in err


def test_the_list_tells_sets_of_crops_from_others(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "t.lt", tmp_path / "t.lt", symlinks=True)
    code, _, err = run("add-tokens", tmp_path / "t.lt", "--codec", "int8", "--crops")
    assert code == 0, err
    code, out, _ = run("maxsim", tmp_path / "t.lt")
    assert code == 0 and [line.split()[:3] for line in out.splitlines() if "int8" in line] == [
        ["tiny-vl", "int8", "no"],
        ["tiny-vl", "int8", "yes"],
    ]
    code, _, err = run("drop-tokens", tmp_path / "t.lt", "--codec", "none")
    assert code == 2 and "+crops4 (key " in err, err


def test_tables_that_share_no_tokens_are_told_how_to(place: Path, tmp_path: Path) -> None:
    code, _, err = run("index", tmp_path / "more.lt", place / "scenes" / "scene-001.jpg")
    assert code == 0, err
    both = ("search", tmp_path / "more.lt", place / "query.jpg", "--table", place / "t.lt")
    for option in (["--maxsim", "12"], ["--missing-tokens", "skip"]):
        code, _, err = run(*both, *option)
        assert code == 2 and "share no" in err and "looktwice add-tokens TABLE --codec int8, for each table" in err, err
    code, _, err = run("add-tokens", tmp_path / "more.lt", "--codec", "int8")
    assert code == 0 and run(*both, "--maxsim", "12")[0] == 0, err


@pytest.mark.parametrize(
    ("verdict", "said"), [("unclear", "it is unclear whether a middle look helps"), ("hurts", "a middle look hurts")]
)
def test_a_verdict_is_a_sentence(verdict: str, said: str) -> None:
    assert maxsim._said(verdict) == said


def test_a_probe_of_a_table_with_two_codecs_takes_the_one_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "t.lt", tmp_path / "t.lt", symlinks=True)
    code, _, err = run("add-tokens", tmp_path / "t.lt", "--codec", "none")
    assert code == 0, err
    asked = ("maxsim", tmp_path / "t.lt", "--probe", "--queries", "3", "--depth", "6", "--json")
    code, out, err = run(*asked, "--codec", "int8")
    assert code == 0 and json.loads(out)["middle_look"]["codec"] == "int8", err
    code, _, err = run(*asked)
    assert code == 2 and "choose one with --codec: int8, none" in err
    code, _, err = run("search", tmp_path / "t.lt", place / "query.jpg", "--maxsim", "12", "--codec", "images")
    assert code == 2 and "choose one with --maxsim-codec: int8, none" in err


def test_eval_has_it_as_a_system(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "t.lt", tmp_path / "t.lt")
    names = sorted(path.name for path in (place / "scenes").iterdir())
    (tmp_path / "qrels").write_text(f"q 0 {names[3]} 1\n")
    labels = ("--queries", place / "q.jsonl", "--qrels", tmp_path / "qrels", "--shortlist", "4")
    asked = ("eval", "run", "table", "--table", tmp_path / "t.lt", *labels, "--maxsim", "12", "--crops", "--json")
    code, out, err = run(*asked, "--out", tmp_path / "both")
    assert code == 0, err
    record = json.loads(out)
    assert [row["system"] for row in record["systems"]] == ["shortlist", "middle look", "second look"]
    assert "coarse=0,maxsim=0.75,odds=0.25" in {row["fusion"] for row in record["systems"]}
    assert any("maxsim=" in str(row["fusion"]) for row in record["sweep"])
    code, out, err = run(*asked, "--no-rerank", "--out", tmp_path / "middle")
    assert code == 0, err
    assert [row["system"] for row in json.loads(out)["systems"]] == ["shortlist", "middle look"]
    again = run(*asked, "--out", tmp_path / "both")
    assert again[0] == 0 and json.loads(again[1])["systems"][1] == record["systems"][1], "from stored answers"


def test_robustness_has_it_as_a_column(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.experiment.robustness.DEGRADATIONS", {})
    names = sorted(path.name for path in (place / "scenes").iterdir())
    (tmp_path / "qrels").write_text(f"q 0 {names[3]} 1\n")
    labels = ("--table", place / "t.lt", "--queries", place / "q.jsonl", "--qrels", tmp_path / "qrels")
    asked = ("eval", "robustness", "table", *labels, "--side", "query", "--maxsim", "12", "--shortlist", "3")
    code, out, err = run(*asked, "--out", tmp_path / "r")
    assert code == 0 and "middle look" in out, err
    found = json.loads((tmp_path / "r/robustness.json").read_text())
    assert found["about"]["fusion"] == "coarse=0,maxsim=0.75,odds=0.25"
    assert found["conditions"][0]["middle look"]["mean"] > 0 and found["conditions"][0]["pairs_per_query"] == 3


def test_a_table_without_tokens_is_refused(place: Path, tmp_path: Path) -> None:
    assert run("index", tmp_path / "t.lt", place / "scenes")[0] == 0
    code, _, err = run("search", tmp_path / "t.lt", place / "query.jpg", "--maxsim", "12")
    assert code == 2 and "looktwice add-tokens" in err
    code, _, err = run("search", place / "t.lt", place / "query.jpg", "--fusion", "coarse=0.5,maxsim=0.5")
    assert code == 2 and "add maxsim (--maxsim 1000)" in err
