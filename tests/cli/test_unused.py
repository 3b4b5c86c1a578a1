"""Options that would have no effect are refused, not ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Looktwice

from looktwice.cli.groups import names
from looktwice.cli.server_options import Servers

FILES = ["--queries", "q.jsonl", "--qrels", "qrels.txt"]
VERBS = {
    "search": ["search", "t.lt", "red"],
    "rerank": ["rerank", "run.json", "t.lt", "--queries", "q.jsonl"],
    "duplicates": ["duplicates", "t.lt", "--rerank"],
    "calibrate": ["calibrate", "t.lt", *FILES, "--out", "c.json"],
    "tune": ["tune", "t.lt", *FILES, "--out", "t.json"],
    "maxsim": ["maxsim", "t.lt", "--probe"],
    "eval run": ["eval", "run", "table", "--table", "t.lt", *FILES],
    "eval robustness": ["eval", "robustness", "table", "--table", "t.lt", *FILES],
}


@pytest.fixture
def files(table: Path) -> None:
    """The files that the commands above name, in the current folder."""
    Path("q.jsonl").write_text('{"id": "q", "text": "red"}\n')
    Path("qrels.txt").write_text("q 0 red-0.png 1\n")
    Path("run.json").write_text(json.dumps({"q": {"red-0.png": 0.5}}))


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_a_server_are_refused_for_a_local_model(looktwice: Looktwice, files: None, verb: str) -> None:
    for option in (["--timeout", "3"], ["--api-key-file", "nowhere"]):
        done = looktwice(*VERBS[verb], *option)
        assert done.code == 2 and done.out == "", done
        assert f"{option[0]} has no effect on the local model tiny-vl; leave it out, or name a server: " in done.err


def test_every_option_of_a_server_is_refused_for_a_local_model(looktwice: Looktwice, table: Path) -> None:
    values = {"concurrency": "2", "timeout": "3", "price": "2", "max_cost": "1", "image_ids": None}
    for name in names(Servers):
        option, value = f"--{name.replace('_', '-')}", values.get(name, "x")
        done = looktwice("search", "t.lt", "red", "--mllm", "tiny-vl", option, *([] if value is None else [value]))
        assert done.code == 2 and f"{option} has no effect on the local model tiny-vl" in done.err, done


def test_listing_token_sets_refuses_what_only_a_probe_uses(looktwice: Looktwice, table: Path) -> None:
    for option in (["--depth", "9"], ["--zoom"], ["--mllm", "tiny-vl"]):
        done = looktwice("maxsim", "t.lt", *option)
        assert done.code == 2 and f"{option[0]} has no effect without --probe; add --probe, or leave" in done.err


def test_options_of_a_middle_look_are_refused_without_one(looktwice: Looktwice, files: None) -> None:
    has = {"search": ["--zoom"], "rerank": ["--maxsim-codec", "opq8"], "tune": ["--no-zoom"]}
    has |= {"eval run": ["--crops"], "eval robustness": ["--zoom"]}
    for verb, option in has.items():
        done = looktwice(*VERBS[verb], *option)
        name = option[0].replace("--no-", "--")
        assert done.code == 2 and f"{name} has no effect without a middle look; add --maxsim 1000, or" in done.err, done
        assert done.out == ""


@pytest.mark.parametrize("verb", ["search", "rerank", "duplicates", "calibrate", "tune"])
def test_options_of_stored_tokens_are_refused_if_images_are_read(looktwice: Looktwice, files: None, verb: str) -> None:
    for option in (["--missing-tokens", "skip"], ["--asymmetric"]):
        done = looktwice(*VERBS[verb], "--codec", "images", *option)
        assert done.code == 2 and f"{option[0]} has no effect with --codec images; leave it out" in done.err, done
        done = looktwice(*VERBS[verb], *option)
        assert done.code == 2 and f"{option[0]} has no effect on t.lt, which stores no visual tokens" in done.err, done
        assert "looktwice add-tokens t.lt" in done.err and done.out == ""


def test_index_refuses_options_of_tokens_without_an_mllm(looktwice: Looktwice, pictures: Path) -> None:
    for option in (["--codec", "opq8"], ["--resolution", "64"], ["--max-tiles", "1"]):
        done = looktwice("index", "t.lt", pictures, *option)
        assert done.code == 2 and f"{option[0]} has no effect without --mllm; add --mllm NAME, or leave" in done.err
        assert not Path("t.lt").exists()


def test_index_refuses_previews_of_another_size_and_takes_them_after_off(looktwice: Looktwice, pictures: Path) -> None:
    assert looktwice("index", "t.lt", pictures, "--previews", "64").code == 0
    for same in ([], ["--previews", "64"]):
        assert looktwice("index", "t.lt", pictures, *same).code == 0
    done = looktwice("index", "t.lt", pictures, "--previews", "32")
    assert done.code == 2 and "would not change the previews of t.lt, which have 64 pixels" in done.err
    for side in ("off", "32"):
        assert looktwice("index", "t.lt", pictures, "--previews", side).code == 0
    (facts,) = looktwice("info", "t.lt", "--json").records
    assert facts["previews"] == {"side": 32, "count": 12}


def test_search_refuses_options_that_do_not_apply_to_the_query(looktwice: Looktwice, files: None) -> None:
    image = "pictures/red-0.png"
    for query in ([image], ["--image", image, "--text", "red"], ["red", "--like", image]):
        done = looktwice("search", "t.lt", *query, "--hubness", "bank")
        assert done.code == 2 and "--hubness has no effect on this query" in done.err and done.out == "", done
        assert looktwice("search", "t.lt", *query, "--hubness", "off").code == 0
    text_only = ["--image", image, "--text", "red", "--direction", "text-to-image"]
    assert looktwice("search", "t.lt", *text_only, "--hubness", "bank").code == 0
    for query in (["red"], ["--like", image], [image, "--unlike", "blue-0.png"]):
        done = looktwice("search", "t.lt", *query, "--examples", "max")
        assert done.code == 2 and "--examples has no effect on one example; add another with --like" in done.err
    done = looktwice("search", "t.lt", "--queries", "q.jsonl", "--examples", "max")
    assert done.code == 2 and "--examples has no effect with --queries" in done.err
    assert looktwice("search", "t.lt", "--queries", "q.jsonl", "--hubness", "bank").code == 0


def test_serve_refuses_options_of_a_second_look_without_one(looktwice: Looktwice, table: Path) -> None:
    for option in (["--mllm", "tiny-vl"], ["--prompt", "object"], ["--score-cache", "s.db"], ["--tuned", "t.json"]):
        done = looktwice("serve", "t.lt", "--no-rerank", *option)
        assert done.code == 2 and f"{option[0]} has no effect with --no-rerank; leave it out" in done.err, done


def test_models_refuses_numbers_of_what_was_not_asked_for(looktwice: Looktwice) -> None:
    for option, needs in (("--pairs", "--probe"), ("--price", "--probe"), ("--items", "--fits")):
        done = looktwice("models", "preset", option, "5")
        assert done.code == 2 and f"{option} has no effect without {needs}; add {needs}" in done.err and not done.out
