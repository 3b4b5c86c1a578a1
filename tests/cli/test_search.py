"""search and rerank: what is asked, what comes out where, what is refused."""

from __future__ import annotations

import inspect
import json
import os
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import Looktwice
from PIL import Image
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.cli.search import SECOND, search
from looktwice.encode import load_encoder
from looktwice.sources import images
from looktwice.store import Table
from looktwice.testing import BrightnessScorer, make_images
from looktwice.types import Item


def queries(folder: Path, *lines: dict[str, str]) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_json_is_one_line_per_hit_and_nothing_else_on_stdout(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "pictures/red-1.png", "-k", "5", "--json", "--fusion", "p-only")
    assert done.code == 0
    assert [hit["rank"] for hit in done.records] == [1, 2, 3, 4, 5]
    first = done.records[0]
    own = {"query", "rank", "id", "score", "coarse", "p", "scored", "explain"}
    assert set(first) == own | {"uri", "text", "metadata"}
    assert first["id"] == "red-0.png" and first["query"] == "pictures/red-1.png" and first["scored"]
    assert "12 of 12 candidates reranked" in done.err and "prompt object" in done.err


def test_hits_as_json_hold_what_the_table_holds_of_the_item(looktwice: Looktwice, tmp_path: Path) -> None:
    image = make_images(tmp_path / "pictures") / "red-0.png"
    line = {"id": "sku", "image": str(image), "text": "red shoe", "metadata": {"price": 19.5}}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    assert looktwice("index", "own.lt", "list.jsonl").code == 0
    (tmp_path / "run.trec").write_text("q Q0 sku 1 0.9 t\n")
    searched = looktwice("search", "own.lt", "red", "--json")
    reranked = looktwice(
        "rerank", "run.trec", "own.lt", "--queries", queries(tmp_path, {"id": "q", "text": "red"}), "--json"
    )
    for done in (searched, reranked):
        hit = done.records[0]
        assert (hit["uri"], hit["text"], hit["metadata"]) == (image.as_uri(), "red shoe", {"price": 19.5})


def test_people_get_a_table(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "something blue", "-k", "2")
    head, _, *rows = done.out.splitlines()
    assert head.split() == ["#", "id", "score", "coarse", "p", "moved"]
    assert [row.split()[1] for row in rows] == ["blue-0.png", "blue-1.png"]


def test_no_rerank_and_shortlist(looktwice: Looktwice, table: Path, scorer: BrightnessScorer) -> None:
    done = looktwice("search", table, "red", "--no-rerank", "--json")
    assert scorer.shown == [] and all(hit["p"] is None for hit in done.records)
    looktwice("search", table, "red", "--shortlist", "3", "-k", "12", "--json")
    assert len(scorer.shown) == 3


def test_queries_have_the_size_that_the_table_was_made_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MODEL@SIZE/QUERY, with the real encoder: a picture of the table is itself only at the table's own size."""
    monkeypatch.chdir(tmp_path)
    picture = next((files("looktwice") / "assets/tiny/gallery/images").iterdir())
    found = []
    for table, name in (("own.lt", "tiny-clip@120"), ("larger.lt", "tiny-clip@120/200")):
        made = CliRunner().invoke(app, ["index", table, str(picture), "--encoder", name, "--device", "cpu"])
        done = CliRunner().invoke(app, ["search", table, str(picture), "--no-rerank", "--json", "--device", "cpu"])
        assert made.exit_code == done.exit_code == 0, made.output + done.output
        found.append(json.loads(done.stdout)["coarse"])
    encoder, item = load_encoder("tiny-clip@120/200", device="cpu"), Item("q", images.load(picture.read_bytes())[0])
    apart = float(encoder.encode([item])[0] @ encoder.for_queries.encode([item])[0])
    assert found == pytest.approx([1, apart], abs=2e-3) and apart < 0.99
    assert Table.open("larger.lt").manifest.encoder.queries == "tiny-clip@120/200"
    assert "queries" not in json.loads(Path("own.lt/manifest.json").read_text())["encoder"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "File 'missing.jpg' does not exist"),
        (["no/such/thing"], "does not exist"),
        (["~/pictures"], "does not exist"),
        (["photo.heic"], "does not exist"),
        (["my holiday photo.PNG"], "does not exist"),
        (["pictures"], "is a folder"),
        ([""], "empty"),
        ([], "The query is missing"),
        (["red", "--text", "blue"], "QUERY excludes --image and --text"),
        (["--image", "nowhere.jpg"], "nowhere.jpg"),
        (["--text", "  "], "empty"),
        (["caf\udce9"], "not UTF-8"),
        (["--text", "caf\udce9"], "not UTF-8"),
        (["--image", "pictures/red-0.png", "--text", "caf\udce9"], "not UTF-8"),
        (["red", "-k", "0"], "k must be at least 1"),
        (["red", "-k", "-3"], "k must be at least 1"),
        (["red", "--shortlist", "0"], "shortlist must be at least 1"),
        (["red", "--fusion", "2"], "between 0"),
        (["red", "--fusion", "rrrf"], "did you mean rrf"),
        (["red", "--prompt", "objekt"], "did you mean object"),
        (["red", "--prompt", "object"], "does not fit"),
        (["red", "--where", "yeer > 2000"], "yeer"),
        (["red", "--missing-tokens", "ignore"], "ignore"),
        (["red", "--codec", "nonsense"], "nonsense"),
        (["red", "--queries", "q.jsonl"], "exclude each other"),
        (["--queries", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--queries", "queries.txt"], ".jsonl"),
        (["red", "--report", "no-folder/r.html"], "no-folder"),
        (["red", "--run", "."], "is a folder"),
        (["red", "--run", "x.out", "--report", "./x.out"], "would overwrite a file of --run"),
        (["red", "--run", "x", "--report", "x.json"], "would overwrite a file of --run"),
        (["red", "--threads", "0"], "threads"),
        (["red", "--no-rerank", "--mllm", "tiny-vl"], "--mllm has no effect with --no-rerank"),
        (["red", "--no-rerank", "--repetition-penalty"], "--repetition-penalty has no effect with --no-rerank"),
        (["red", "--no-rerank", "--budget", "all"], "--budget has no effect with --no-rerank"),
        (["red", "--no-rerank", "--min-precision", "0.9"], "--min-precision has no effect with --no-rerank"),
    ],
)
def test_what_is_refused(looktwice: Looktwice, table: Path, arguments: list[str], message: str) -> None:
    done = looktwice("search", table, *arguments)
    assert done.code == 2, done
    assert message in done.err and "Traceback" not in done.err and done.out == ""


def test_every_name_of_what_no_rerank_refuses_is_a_parameter() -> None:
    assert set(inspect.signature(search).parameters) > SECOND


def test_words_that_are_no_paths(looktwice: Looktwice, table: Path) -> None:
    for words in ("a red and/or blue thing", "red. blue", "red"):
        assert looktwice("search", table, words).code == 0
    assert looktwice("search", table, "--text", "red/blue").code == 0


def test_a_broken_query_is_named_with_its_reason(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing follows")
    done = looktwice("search", table, "broken.jpg")
    assert done.code == 2 and "broken.jpg" in done.err and "cannot be read" in done.err


def test_escapes_never_reach_the_terminal(looktwice: Looktwice, pictures: Path) -> None:
    Image.new("RGB", (8, 8), (250, 0, 0)).save(pictures / "evil\x1b]0;owned\x07\u202egpj.png")
    looktwice("index", "t.lt", pictures)
    shown = looktwice("search", "t.lt", "red", "-k", "20")
    raw = looktwice("search", "t.lt", "red", "-k", "20", "--json")
    for text in (shown.out, shown.err, raw.out, raw.err):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "evil\x1b]0;owned\x07\u202egpj.png" in {hit["id"] for hit in raw.records}


def test_vanished_candidates_are_said_and_give_exit_code_3(looktwice: Looktwice, pictures: Path) -> None:
    own_table = Path("t.lt")
    assert looktwice("index", own_table, pictures, "--previews", "off").code == 0
    Path("pictures/red-0.png").unlink()
    done = looktwice("search", own_table, "red", "--json", "-k", "12")
    assert done.code == 3
    assert "11 of 12 candidates" in done.err and "red-0.png" in done.err and "1 of 12 are gone; run index" in done.err
    (gone,) = [hit for hit in done.records if hit["p"] is None]
    assert gone["id"] == "red-0.png" and gone["rank"] == gone["explain"]["coarse_rank"] == 1
    assert gone["explain"]["status"] == "missing"
    shown = looktwice("search", own_table, "red", "-k", "1")
    assert shown.out.splitlines()[2].split()[:2] == ["1", "red-0.png"] and "gone" in shown.out


def test_a_preview_stands_in_for_a_vanished_image_and_says_so(looktwice: Looktwice, own_table: Path) -> None:
    before = looktwice("search", own_table, "red", "--json", "-k", "12")
    for path in Path("pictures").glob("red-*.png"):
        path.unlink()
    done = looktwice("search", own_table, "red", "--json", "-k", "12", "--report", "r.html")
    assert done.code == 0 and [hit["id"] for hit in done.records] == [hit["id"] for hit in before.records]
    assert {hit["id"] for hit in done.records if hit["explain"].get("image") == "preview"} == {
        "red-0.png", "red-1.png", "red-2.png"
    }  # fmt: skip
    assert "3 original images could not be opened; the second look saw their previews" in done.err
    assert not any("image" in hit["explain"] for hit in before.records)
    page = Path("r.html").read_text()
    assert page.count("data:image/") >= 10 and page.count("(preview)") >= 3


def test_many_queries_run_report_and_manifest(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    asked = queries(
        tmp_path,
        {"id": "q 1", "image": "pictures/red-0.png"},
        {"id": "q2", "text": "blue"},
        {"id": "both", "image": "pictures/red-0.png", "text": "but blue"},
        {"id": "broken", "image": "nowhere.png"},
    )
    done = looktwice("search", table, "--queries", asked, "--run", "out.trec", "--report", "out.html", "-k", "2")
    assert done.code == 3 and "broken" in done.err
    lines = [line.split() for line in Path("out.trec").read_text().splitlines()]
    assert len(lines) == 3 * 12 and all(len(line) == 6 for line in lines)
    assert lines[0][:2] == ["q\\u00201", "Q0"]
    manifest = json.loads(Path("out.trec.json").read_text())
    assert manifest["queries"] == 3 and manifest["candidates"]["scored"] == 36
    assert manifest["second_look"][0]["mllm"] == "brightness" and manifest["fusion"] == "0.5"
    assert manifest["encoder"]["name"] == "colors" and manifest["versions"]["torch"]
    page = Path("out.html").read_text()
    assert "blue-0.png" in page and "<script src" not in page
    listed = looktwice("search", table, "--queries", asked, "--json", "-k", "2").records
    assert [hit["query"] for hit in listed] == ["q 1", "q 1", "q2", "q2", "both", "both"]


def test_what_made_a_run_is_written_whole_or_not_at_all(
    looktwice: Looktwice, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("out.trec.json").write_text("as it was")
    replace = Path.replace

    def full(draft: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise OSError(28, "No space left on device")
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", full)
    done = looktwice("search", table, "red", "--run", "out.trec", "--no-rerank")
    assert done.code == 1 and "out.trec.json cannot be written (No space" in done.err
    assert Path("out.trec.json").read_text() == "as it was" and not list(Path().glob("*.part"))


def test_outputs_that_are_links_or_pipes(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    Path("data").mkdir()
    for name in ("run.trec", "r.html"):
        Path(name).symlink_to(f"data/{name}")
    asked = queries(tmp_path, {"id": "q", "text": "red"})
    done = looktwice("search", table, "--queries", asked, "--run", "run.trec", "--report", "r.html")
    assert done.code == 0 and Path("run.trec").is_symlink() and Path("r.html").is_symlink()
    assert len(Path("data/run.trec").read_text().splitlines()) == 12 and Path("data/r.html").stat().st_size > 1000
    assert "1 ranking in run.trec, their settings in run.trec.json." in done.err
    os.mkfifo("pipe")
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe").read_text()))
    reader.start()
    done = looktwice("search", table, "--queries", asked, "--run", "pipe")
    reader.join()
    assert done.code == 0 and "1 ranking in pipe.\n" in done.err
    assert heard == [Path("data/run.trec").read_text()] and not list(Path().glob("pipe.*"))


@pytest.mark.parametrize("outputs", [("--run", "dir/o.trec"), ("--report", "dir/o.html"), ("--run", "o.trec")])
def test_outputs_that_may_not_be_written_are_refused_before_the_work(
    looktwice: Looktwice,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scorer: BrightnessScorer,
    outputs: tuple[str, str],
) -> None:
    Path("dir").mkdir()
    Path("o.trec").write_text("kept")
    refused = (Path("dir").absolute(), Path("o.trec"))

    def access(path: Path, mode: int) -> bool:  # root may all
        return path not in refused or not mode & os.W_OK

    monkeypatch.setattr(os, "access", access)
    done = looktwice("search", table, "--queries", queries(tmp_path, {"id": "q", "text": "red"}), *outputs)
    assert done.code == 2 and f"{outputs[1]} cannot be written: Permission denied;" in done.err
    assert scorer.shown == [] and Path("o.trec").read_text() == "kept"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "occurs twice"),
        ('{"id": "b"\n', "q.jsonl is not a usable query file: line 1: it is not JSON"),
        ("", "has no queries"),
        ('{"text": "x"}\n', "id"),
    ],
)
def test_bad_query_files(looktwice: Looktwice, table: Path, tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(lines)
    done = looktwice("search", table, "--queries", "q.jsonl")
    assert done.code == 2 and message in done.err


def test_a_bad_line_is_a_failed_query(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "a", "text": "red"}\n{"id": "b"\n\n5\n{"id": "c", "text": "blue"}\n')
    done = looktwice("search", table, "--queries", "q.jsonl", "--no-rerank", "--json", "-k", 1)
    assert done.code == 3 and [record["query"] for record in done.records] == ["a", "c"]
    assert "Query line 2 was skipped: bad-record: it is not JSON" in done.err
    assert "Query line 4 was skipped: bad-record: it is JSON, but not an object" in done.err


def test_score_cache_goes_on_where_it_stopped(looktwice: Looktwice, table: Path, scorer: BrightnessScorer) -> None:
    first = looktwice("search", table, "red", "--score-cache", "scores.db", "--json")
    assert len(scorer.shown) == 12
    second = looktwice("search", table, "red", "--score-cache", "scores.db", "--json")
    assert len(scorer.shown) == 12 and first.out == second.out


@pytest.mark.parametrize(
    ("options", "kept", "advice"),
    [
        (["--queries", "queries.jsonl"], False, True),
        (["--queries", "queries.jsonl", "--report", "r.html"], False, True),
        (["--queries", "queries.jsonl", "--run", "o.trec"], True, False),
        (["red", "--score-cache", "scores.db"], True, False),
        (["red", "--run", "o.trec"], False, False),
    ],
)
def test_an_interruption_says_whether_anything_is_kept(
    looktwice: Looktwice,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    kept: bool,
    advice: bool,
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    queries(tmp_path, {"id": "q", "text": "red"})
    monkeypatch.setattr(BrightnessScorer, "score", stopped)
    done = looktwice("search", table, *options)
    assert done.code == 130 and "Interrupted." in done.err
    assert ("run the same command again" in done.err) == kept
    assert ("pass --run or --score-cache" in done.err) == advice


def test_a_report_that_shows_some_of_the_queries_says_so(
    looktwice: Looktwice, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = queries(tmp_path, *({"id": name, "text": name} for name in ("red", "green", "blue")))
    done = looktwice("search", table, "--queries", asked, "--report", "all.html")
    assert "Report: all.html\n" in done.err
    assert '<p class="lead">3 queries, before' in Path("all.html").read_text("utf-8")
    monkeypatch.setattr("looktwice.cli.answers.MOST_IN_REPORT", 2)
    done = looktwice("search", table, "--queries", asked, "--report", "some.html")
    assert "Report: some.html (the first 2 of 3 queries)" in done.err
    assert '<p class="lead">The first 2 of 3 queries, before' in Path("some.html").read_text("utf-8")


@pytest.mark.parametrize("files", [("--run", "o.trec"), ("--report", "o.html")])
def test_a_reader_that_has_seen_enough_costs_no_file(
    looktwice: Looktwice, table: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, str]
) -> None:
    def gone(_: object) -> None:
        raise BrokenPipeError

    muted: list[bool] = []
    monkeypatch.setattr("looktwice.cli.answers.emit", gone)
    monkeypatch.setattr("looktwice.cli.answers.mute_stdout", lambda: muted.append(True))
    done = looktwice("search", table, "red", "--no-rerank", "--json", *files)
    assert done.code == 0 and muted == [True] and Path(files[1]).exists()


# --- rerank -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["t.lt", "pictures"])
@pytest.mark.parametrize("form", ["trec", "json"])
def test_rerank(looktwice: Looktwice, table: Path, tmp_path: Path, collection: str, form: str) -> None:
    asked = queries(tmp_path, {"id": "q", "text": "red"}, {"id": "other", "text": "blue"})
    scores = {"red-2.png": 0.9, "red-0.png": 0.8, "red-1.png": 0.7}
    if form == "json":
        Path("run").write_text(json.dumps({"q": scores}))
    else:
        Path("run").write_text("".join(f"q Q0 {name} {i} {s} x\n" for i, (name, s) in enumerate(scores.items(), 1)))
    done = looktwice("rerank", "run", collection, "--queries", asked, "--fusion", "p-only", "--run", "o.trec", "--json")
    assert done.code == 0, done.err
    assert [hit["id"] for hit in done.records] == ["red-0.png", "red-1.png", "red-2.png"]
    assert [line.split()[2] for line in Path("o.trec").read_text().splitlines()] == [hit["id"] for hit in done.records]


@pytest.mark.parametrize(
    ("run", "collection", "message"),
    [
        ('{"q": {"red-0.png": 17.5}}', "pictures", "rrf"),
        ('{"z": {"red-0.png": 0.5}}', "pictures", "share no query id"),
        ('{"q": {"red-0.png": "high"}}', "pictures", "give a number"),
        ("not a run", "pictures", "line 1"),
        ('{"q": {"red-0.png": 0.5}}', "nowhere", "nowhere"),
    ],
)
def test_what_rerank_refuses(
    looktwice: Looktwice, table: Path, tmp_path: Path, run: str, collection: str, message: str
) -> None:
    asked = queries(tmp_path, {"id": "q", "text": "red"})
    Path("run").write_text(run)
    done = looktwice("rerank", "run", collection, "--queries", asked)
    assert done.code == 2, done
    assert message in done.err and done.out == ""


@pytest.mark.parametrize(
    "option", [["--codec", "nonsense"], ["--codec", "auto"], ["--missing-tokens", "skip"], ["--asymmetric"]]
)
def test_rerank_of_a_folder_refuses_what_only_a_table_has(
    looktwice: Looktwice, table: Path, tmp_path: Path, option: list[str]
) -> None:
    asked = queries(tmp_path, {"id": "q", "text": "red"})
    Path("run").write_text('{"q": {"red-0.png": 0.5}}')
    done = looktwice("rerank", "run", "pictures", "--queries", asked, *option)
    assert done.code == 2 and f"{option[0]} has no effect with a folder of images" in done.err
    if option == ["--codec", "auto"]:
        assert looktwice("rerank", "run", table, "--queries", asked, *option).code == 0


def test_rerank_reads_only_queries_that_have_a_shortlist(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    words = [{"id": name, "text": "red"} for name in ("q", "empty")]
    asked = queries(tmp_path, *words, {"id": "alone", "image": "nowhere.png"})
    Path("run").write_text(json.dumps({"q": {"red-0.png": 0.5}, "empty": {}, "z": {"red-0.png": 0.5}}))
    done = looktwice("rerank", "run", "pictures", "--queries", asked, "--run", "o.trec")
    assert done.code == 0, done.err
    assert "Warning: 1 query of run is not in " in done.err
    assert "queries.jsonl is without a shortlist in run and is skipped." in done.err
    assert len(Path("o.trec").read_text().splitlines()) == 1 and "1 ranking in o.trec" in done.err
    Path("run").write_text(json.dumps({name: {"red-0.png": 0.5} for name in ("empty", "y", "z")}))
    done = looktwice("rerank", "run", "pictures", "--queries", asked)
    assert "2 queries of run are not in " in done.err and "queries.jsonl are without a shortlist in run and" in done.err


def test_one_id_that_is_not_utf8_stops_no_rerank(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    Path("run").write_bytes(b"q Q0 red-0.png 1 0.9 t\nq Q0 caf\xe9.png 2 0.5 t\n")
    Path("q.jsonl").write_text('{"id": "q", "text": "red"}\n')
    done = looktwice("rerank", "run", table, "--queries", "q.jsonl", "--json")
    assert done.code == 3 and [hit["id"] for hit in done.records] == ["red-0.png", "caf\udce9.png"]


def test_rerank_of_ids_that_are_nowhere_says_so(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    asked = queries(tmp_path, {"id": "q", "text": "red"})
    Path("run").write_text('{"q": {"x/red-0.jpg": 0.5, "x/red-1.jpg": 0.4}}')
    done = looktwice("rerank", "run", "pictures", "--queries", asked)
    assert done.code == 2 and "x/red-0.jpg" in done.err


def test_examples_of_what_to_find_and_what_not(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "pictures/red-0.png", "--like", "blue-0.png", "--no-rerank", "--json", "-k", "12")
    assert done.code == 0 and {record["id"] for record in done.records[:9]} >= {"grey-0.png", "red-0.png", "blue-1.png"}
    assert "blue-0.png" not in {record["id"] for record in done.records}
    assert done.records[0]["query"] == "pictures/red-0.png + blue-0.png"
    done = looktwice(
        "search", table, "--like", "grey", "--unlike", "pictures/red-0.png", "--no-rerank", "--json", "-k", "12"
    )
    assert [record["id"][:-6] for record in done.records[-3:]] == ["red"] * 3
    done = looktwice("search", table, "--like", "red", "--like", "blue", "-k", "1", "--examples", "mean")
    assert done.code == 0 and "24 of 24 candidates" in done.err


def test_examples_that_are_neither_file_nor_item(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "--like", "nowhere.jpg", "--no-rerank")
    assert done.code == 2 and "neither a file nor an item" in done.err
    done = looktwice("search", table, "--unlike", "red", "--no-rerank")
    assert done.code == 2 and "query is missing" in done.err
    done = looktwice("search", table, "red", "--like", "blue", "--examples", "mean", "--no-rerank")
    assert done.code == 2 and "no effect" in done.err


def test_two_tables_are_searched_as_one(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (240, 0, 10)).save(tmp_path / "other.png")
    assert looktwice("index", "b.lt", "other.png").code == 0
    done = looktwice("search", "t.lt", "--table", "b.lt", "red", "--json", "-k", "13", "--report", "r.html")
    assert done.code == 0 and "13 of 13 candidates" in done.err
    assert {record["id"] for record in done.records} >= {"t.lt/red-0.png", "b.lt/other.png"} and len(done.records) == 13
    done = looktwice("search", "t.lt", "--table", "b.lt", "--like", "b.lt/other.png", "--no-rerank", "--json")
    assert done.records[0]["id"] == "t.lt/red-0.png"
    done = looktwice("search", "t.lt", "--table", "t.lt", "red")
    assert done.code == 2 and "named twice" in done.err
