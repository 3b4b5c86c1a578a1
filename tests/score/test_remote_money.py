"""What a whole run on a server takes is told and refused before its first pair, and counted after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_server import Answer, Stub, serving
from typer.testing import CliRunner, Result

from looktwice.cli.main import app
from looktwice.testing import COLORS, ColorEncoder, make_images

QUERIES = 12
TOKENS = 100  # that the stub says it has read for a pair
Run = Callable[..., Result]


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as one:
        yield one


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stub: Stub) -> Run:
    """A command with the stub as --mllm, in a folder with 12 images, as many queries, their shortlists and labels."""
    for place in ("looktwice.search.retriever.load_encoder", "looktwice.encode.load_encoder"):
        monkeypatch.setattr(place, lambda name, **options: ColorEncoder())
    monkeypatch.chdir(tmp_path)
    images = make_images(tmp_path / "images")
    names = [f"{colour}-{shade}" for colour in COLORS for shade in range(QUERIES // len(COLORS))]
    queries = [{"id": name, "image": str(images / f"{name}.png")} for name in names]
    Path("q.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    Path("qrels.txt").write_text("".join(f"{name} 0 {name}.png 1\n" for name in names))
    rows = [f"{name} Q0 {name[:-1]}{i}.png 1 {1 - i} x\n" for name in names for i in (0, 1)]
    Path("first.trec").write_text("".join(rows))
    assert CliRunner().invoke(app, ["index", "t.lt", str(images)]).exit_code == 0

    def call(*arguments: object) -> Result:
        mllm = ["--mllm", f"{stub.url}#stub", "--price", "10"]
        return CliRunner().invoke(app, [*map(str, arguments), *mllm])

    return call


SEARCH = ("search", "t.lt", "--queries", "q.jsonl", "--shortlist", "5")
RERANK = ("rerank", "first.trec", "t.lt", "--queries", "q.jsonl")
EVAL = ("eval", "run", "table", "--table", "t.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--shortlist", "5")


@pytest.mark.parametrize(
    ("command", "pairs"),
    [(SEARCH, 5 * QUERIES), (RERANK, 2 * QUERIES), ((*EVAL, "--out", "e"), 5 * QUERIES)],
)
def test_a_run_is_estimated_and_refused_before_its_first_pair(run: Run, stub: Stub, command: Any, pairs: int) -> None:
    cost = pairs * TOKENS * 10 / 1e6
    refused = run(*command, "--max-cost", cost * 0.9)
    assert refused.exit_code == 2 and f"next {pairs} pairs would cost about {cost:.4g}" in refused.stderr
    assert len({part["image_url"]["url"] for body in stub.asked for part in images(body)}) <= 2  # those of the probe
    allowed = run(*command, "--max-cost", cost * 1.1)
    assert allowed.exit_code == 0, allowed.stderr
    assert f"Up to {pairs} pairs: about {pairs * TOKENS:,} tokens ({cost:.4g} of money)" in allowed.stderr
    assert f"read {pairs * TOKENS:,} tokens in" in allowed.stderr and f"which cost {cost:.4g}." in allowed.stderr


def images(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]


def test_larger_images_than_the_probes_stop_a_run_that_will_not_fit_early(run: Run, stub: Stub) -> None:
    def large(s: Stub, body: dict[str, Any], n: int) -> Answer | None:
        return s.chat(body, usage={"prompt_tokens": 30 * TOKENS}) if n > 4 else None

    stub.fault = large
    done = run(*SEARCH, "--max-cost", 5 * QUERIES * TOKENS * 10 / 1e6, "--concurrency", 1)
    assert done.exit_code == 2 and "Scores in a --score-cache or beside a --run are kept" in done.stderr
    assert len(stub.asked) < 4 + 5 * QUERIES


def test_a_run_that_goes_on_is_estimated_without_what_it_has(run: Run, stub: Stub) -> None:
    assert run(*SEARCH, "--score-cache", "s.db").exit_code == 0
    stub.models = ["stub"]
    again = run(*SEARCH, "--score-cache", "s.db", "--max-cost", "0.0001")
    assert again.exit_code == 0 and "Up to 0 pairs" in again.stderr


def test_salt_and_ids_of_images_come_from_the_command_line(run: Run, stub: Stub) -> None:
    done = run(*SEARCH, "--cache-salt", "tenant-7", "--image-ids", "--run", "out.trec")
    assert done.exit_code == 0
    assert stub.asked[-1]["cache_salt"] == "tenant-7"
    assert len(stub.asked[-1]["messages"][0]["content"][0]["uuid"]) == 64
    assert "tenant-7" not in Path("out.trec.json").read_text()
