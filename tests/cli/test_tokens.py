"""Visual tokens on the command line, with the bundled models: stored, used, missing, compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import run
from PIL import Image

from looktwice.store import Table
from looktwice.testing import make_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, indexed with their visual tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    make_images(folder / "pictures")
    code, out, err = run(
        "index", folder / "t.lt", folder / "pictures", "--mllm", "tiny-vl", "--codec", "int8", "--json"
    )
    assert code == 0, err
    record = json.loads(out)
    assert record["items"] == 12 and record["tokens"]["encoded"] == 12 and record["tokens"]["bytes_per_image"] > 0
    return folder


def test_stored_tokens_are_used_and_named(place: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.jsonl"
    queries.write_text(json.dumps({"id": "q", "image": str(place / "pictures" / "red-0.png")}) + "\n")
    code, _, err = run("search", place / "t.lt", "--queries", queries, "--run", tmp_path / "out.trec")
    assert code == 0, err
    manifest = json.loads((tmp_path / "out.trec.json").read_text())
    (seen,) = manifest["candidates_from"]
    assert seen["codec"] == "int8" and seen["counts"] == {"stored": 12}
    code, _, err = run(
        "search", place / "t.lt", "--queries", queries, "--codec", "pictures", "--run", tmp_path / "p.trec"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "p.trec.json").read_text())["candidates_from"] == [{"codec": "pictures"}]
    _, shown, _ = run("info", place / "t.lt")
    assert "tokens int8" in shown and "tiny-vl" in shown


def test_an_uncompressed_query_is_asked_for_and_named(place: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.jsonl"
    queries.write_text(json.dumps({"id": "q", "image": str(place / "pictures" / "green-1.png")}) + "\n")
    runs = {}
    for name, more in (("both", []), ("one", ["--asymmetric"]), ("released", ["--repetition-penalty"])):
        out = tmp_path / name
        code, shown, err = run("search", place / "t.lt", "--queries", queries, "--run", out, "--json", *more)
        assert code == 0, err
        hits = [json.loads(line) for line in shown.splitlines()]
        manifest = json.loads((tmp_path / f"{name}.json").read_text())
        assert manifest["candidates_from"][0]["asymmetric"] is (name == "one")
        assert "repetition_penalty" in manifest["second_look"][0]
        runs[name] = {hit["id"]: hit["p"] for hit in hits}
    assert runs["both"] != runs["one"]


def test_a_cascade_on_the_command_line(place: Path, tmp_path: Path) -> None:
    table = shutil.copytree(place / "t.lt", tmp_path / "t.lt")
    assert run("add-tokens", table, "--codec", "pool2")[0] == 0
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "q", "image": str(place / "pictures" / "red-0.png")}) + "\n")
    ask = ["search", table, "--queries", tmp_path / "q.jsonl", "--run", tmp_path / "out.trec"]
    code, _, err = run(*ask)
    assert code == 2 and "choose one with --codec" in err
    code, _, err = run(*ask, "--budget", "cascade:pool2@3")
    assert code == 0, err
    manifest = json.loads((tmp_path / "out.trec.json").read_text())
    assert manifest["budget"] == "cascade:pool2@3"
    assert [record["codec"] for record in manifest["candidates_from"]] == ["pool2", "int8"]
    assert [record["counts"] for record in manifest["candidates_from"]] == [{"stored": 12}, {"stored": 3}]
    assert manifest["candidates"]["requested"] == 15
    assert run(*ask, "--budget", "cascade:pq8@3")[0] == 2, "no such tokens"
    assert run(*ask, "--budget", "cascade:pool2@3", "--codec", "pool2")[0] == 2, "the same twice"
    assert run(*ask, "--budget", "cascade:pool@3")[0] == 2, "no such codec"


def with_one_without_tokens(tmp_path: Path) -> Path:
    """Index images with int8 tokens and, later, one more without."""
    make_images(tmp_path / "pictures")
    table = tmp_path / "t.lt"
    assert run("index", table, tmp_path / "pictures", "--mllm", "tiny-vl", "--codec", "int8")[0] == 0
    Image.new("RGB", (9, 9), (240, 10, 10)).save(tmp_path / "pictures" / "new.png")
    assert run("index", table, tmp_path / "pictures")[0] == 0
    return table


def test_candidates_without_tokens_are_refused_encoded_or_skipped(tmp_path: Path) -> None:
    table = with_one_without_tokens(tmp_path)
    ask = ["search", table, tmp_path / "pictures" / "red-0.png", "--json", "-k", "13"]
    code, out, err = run(*ask)
    assert code == 2 and "add-tokens" in err and out == ""
    code, out, _ = run(*ask, "--missing-tokens", "encode")
    assert code == 0 and all(json.loads(line)["scored"] for line in out.splitlines())
    code, out, err = run(*ask, "--missing-tokens", "skip")
    assert code == 3 and "12 of 13" in err
    assert [json.loads(line)["id"] for line in out.splitlines() if not json.loads(line)["scored"]] == ["new.png"]
    code, out, _ = run("add-tokens", table, "--codec", "int8", "--json")
    assert code == 0 and json.loads(out)["encoded"] == 1
    assert run(*ask)[0] == 0


def sets(table: Path) -> list[tuple[str, int]]:
    """Return the codec of each token set, and how many images it holds."""
    opened = Table.open(table)
    kept = [(entry["codec"], entry["tokens_key"]) for entry in opened.manifest.tokens]
    ids = [row["id"] for row in opened.rows()]
    return [(codec, sum(row is not None for row in opened.read_codes(ids, key))) for codec, key in kept]


def test_without_a_codec_the_stored_one_goes_on(tmp_path: Path) -> None:
    table = with_one_without_tokens(tmp_path)
    code, out, err = run("add-tokens", table)
    assert code == 0 and out.startswith("int8: tokens of 1 image"), err
    assert "holds tokens of tiny-vl as int8, so this adds to them; --codec opq8 makes new ones" in err
    assert sets(table) == [("int8", 13)]
    code, _, err = run("index", table, tmp_path / "pictures", "--mllm", "tiny-vl")
    assert code == 0 and "as int8, so this adds to them" in err and sets(table) == [("int8", 13)]
    code, _, err = run("add-tokens", table, "--save-codebook", tmp_path / "book")
    assert code == 2 and "The codec int8 has no codebook; leave out --save-codebook" in err
    code, _, err = run("add-tokens", table, "--codec", "opq8")
    assert code == 0 and "adds to them" not in err and sets(table) == [("int8", 13), ("opq8", 13)]
    code, _, err = run("add-tokens", table)
    assert code == 2 and "in several codecs; choose one with --codec: int8, opq8" in err
    code, _, err = run("add-tokens", table, "--crops")
    assert code == 0 and sets(table)[2:] == [("opq8", 13)]  # the first tokens of crops


def test_tokens_are_dropped_by_codec(place: Path, tmp_path: Path) -> None:
    table = shutil.copytree(place / "t.lt", tmp_path / "t.lt")
    assert run("add-tokens", table, "--codec", "pool2")[0] == 0
    code, out, err = run("drop-tokens", table, "--mllm", "tiny-vl", "--codec", "pool2+none", "--json")
    assert code == 0 and "looktwice compact" in err, err
    (gone,) = map(json.loads, out.splitlines())
    assert (gone["codec"], gone["images"]) == ("pool2", 12) and gone["bytes"] > 1000
    assert sets(table) == [("int8", 12)]
    code, _, err = run("drop-tokens", table, "--codec", "pool2")
    assert code == 2 and "Unknown token set 'pool2'" in err and "int8 of tiny-vl" in err
    assert run("drop-tokens", table)[0] == 2
    before = sum(file.stat().st_size for file in table.rglob("*") if file.is_file())
    code, _, err = run("drop-tokens", table, "--mllm", "tiny-vl")
    assert code == 0 and "Dropped int8 of tiny-vl" in err and "tokens of 12 images, " in err
    assert sets(table) == [] and run("compact", table, "--purge")[0] == 0
    assert sum(file.stat().st_size for file in table.rglob("*") if file.is_file()) < before


def test_a_benchmark_says_that_it_stores_tokens_before_it_does(tmp_path: Path) -> None:
    for shade in range(2):
        for colour in ("red", "green"):
            (tmp_path / "things" / colour).mkdir(parents=True, exist_ok=True)
            rgb = tuple(250 - 20 * shade if name == colour else 20 for name in ("red", "green", "blue"))
            Image.new("RGB", (20, 20), rgb).save(tmp_path / "things" / colour / f"{shade}.png")
    ask = ["eval", "run", "folder", "--root", tmp_path / "things", "--out", tmp_path / "e"]
    ask += ["--shortlist", "2", "--maxsim", "3", "--no-rerank"]
    code, _, err = run(*ask)
    told = (
        f"--maxsim needs stored tokens, so it first stores visual tokens of 4 images (int8) in {tmp_path}/e/items.lt."
    )
    assert code == 0 and told in err, err
    code, _, err = run(*ask)
    assert code == 0 and "stores" not in err and sets(tmp_path / "e" / "items.lt") == [("int8", 4)]


def test_codecs_are_compared_before_anybody_commits(place: Path) -> None:
    code, out, err = run("codec", place / "t.lt", "none", "int8", "--queries", "2", "--depth", "4", "--json")
    assert code == 0, err
    none, int8 = [json.loads(line) for line in out.splitlines()]
    assert none["codec"] == "none" and none["error"] == 0 and none["delta_p"] == 0
    assert int8["bytes_per_image"] < none["bytes_per_image"] and 0 < int8["error"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add-tokens", "--codec", "qp8"], "pq8"),
        (["add-tokens", "--codec", "pq:7"], "7"),
        (["add-tokens", "--mllm", "tiny-clip"], "tiny-clip"),
        (["add-tokens", "--resolution", "0"], "resolution"),
        (["add-tokens", "--codec", "int8", "--save-codebook", "c"], "leave out --save-codebook"),
        (["add-tokens", "--save-codebook", "no/where"], "Folder no does not exist"),
        (["codec", "int9"], "int8"),
    ],
)
def test_what_is_refused(place: Path, arguments: list[str], message: str) -> None:
    verb, *rest = arguments
    code, out, err = run(verb, place / "t.lt", *rest)
    assert code == 2 and message in err and out == "" and "Traceback" not in err
