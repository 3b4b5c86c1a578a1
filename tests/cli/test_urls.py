"""Tables filled from URLs: their pictures are fetched again where that is allowed, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import Looktwice
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.testing import COLORS, SHADES, make_images

ALLOWED = "--allow-private-urls"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """urls.jsonl, queries.jsonl and labels for twelve pictures that a server on this machine has; its address."""
    monkeypatch.chdir(tmp_path)
    served = make_images(tmp_path / "served")
    running = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}"
    names = [f"{name}-{i}" for name in COLORS for i in range(len(SHADES))]
    write("urls.jsonl", [{"id": name, "image": f"{address}/{name}.png"} for name in names])
    write("q.jsonl", [{"id": name, "image": f"{address}/{name}-0.png"} for name in COLORS])
    Path("qrels.txt").write_text("".join(f"{name} 0 {name}-{i} 1\n" for name in COLORS for i in (0, 1)))
    yield address
    running.shutdown()
    running.server_close()


def write(name: str, lines: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_urls_get_a_second_look_where_they_may_be_fetched(looktwice: Looktwice, listed: str) -> None:
    assert looktwice("index", "u.lt", "urls.jsonl", ALLOWED, "--previews", "off").code == 0
    refused = looktwice("search", "u.lt", "red", "--json")
    assert refused.code == 3 and "0 of 12" in refused.err and "--allow-urls" in refused.err
    private = looktwice("search", "u.lt", "red", "--json", "--allow-urls")
    assert private.code == 3 and "forbidden-address" in private.err and ALLOWED in private.err
    done = looktwice("search", "u.lt", "red", "--json", ALLOWED, "--report", "r.html")
    assert done.code == 0 and "12 of 12" in done.err
    assert Path("r.html").read_text("utf-8").count("data:image/") >= 10
    Path("served/red-0.png").write_bytes(Path("served/grey-0.png").read_bytes())
    changed = looktwice("search", "u.lt", "red", "--json", ALLOWED)
    assert changed.code == 3 and "11 of 12" in changed.err and "has changed since it was indexed" in changed.err


@pytest.mark.parametrize("collection", ["u.lt", "urls.jsonl"])
def test_rerank_fetches_candidates_and_queries(looktwice: Looktwice, listed: str, collection: str) -> None:
    assert looktwice("index", "u.lt", "urls.jsonl", ALLOWED).code == 0
    Path("in.json").write_text(json.dumps({"red": {"red-1": 0.5, "red-0": 0.4}}))
    asked = ("rerank", "in.json", collection, "--queries", "q.jsonl", "--fusion", "p-only", "--json")
    assert looktwice(*asked).code == 3
    done = looktwice(*asked, ALLOWED)
    assert done.code == 0 and [hit["id"] for hit in done.records] == ["red-0", "red-1"]


def test_calibrate_and_eval_fetch_them_too(looktwice: Looktwice, listed: str) -> None:
    assert looktwice("index", "u.lt", "urls.jsonl", ALLOWED).code == 0
    labelled = ("--queries", "q.jsonl", "--qrels", "qrels.txt")
    done = looktwice("calibrate", "u.lt", *labelled, "--out", "c.json", "--prompt", "object", ALLOWED)
    assert done.code == 0, done.err
    done = looktwice("eval", "run", "table", "--table", "u.lt", *labelled, "--json", ALLOWED)
    assert done.code == 0 and done.records[0]["problems"]["pairs_without_a_score"] == 0


def test_visual_tokens_of_urls(listed: str) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        return result.exit_code, result.output

    code, told = run("index", "u.lt", "urls.jsonl", ALLOWED, "--mllm", "tiny-vl", "--codec", "int8")
    assert code == 0 and "int8: tokens of 12 images" in told
    code, told = run("add-tokens", "u.lt", "--codec", "pq8")
    assert code == 2 and "no image to train a codebook on (url-refused" in told
    assert run("add-tokens", "u.lt", "--codec", "pq8", ALLOWED)[0] == 0
    code, told = run("codec", "u.lt", "none", "int8", "--queries", 2, "--depth", 4, ALLOWED)
    assert code == 0, told
