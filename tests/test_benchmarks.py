"""Every benchmark runs with `--smoke`; and what they count, where it can go wrong without being seen in a table."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from looktwice.evaluate import scenes
from looktwice.rank import fuse
from looktwice.search.answer import Answer
from looktwice.search.run_record import RunStats
from looktwice.types import Candidate, Item, PairScores, Status

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
RUNS = [[name] for name in NAMES] + [["retllm", "--cost"]]


def script(name: str) -> ModuleType:
    """A benchmark as a module of its own: `codecs` is also a name of Python's."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts find one another, and set variables of their own; both go with the test."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    for name in ("OMP_NUM_THREADS", "LANCE_CPU_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    yield
    for name in {"_smoke", "_coarse", *NAMES} & sys.modules.keys() - known:
        del sys.modules[name]


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from numbers(one)
    elif isinstance(value, int | float):
        yield float(value)


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_a_benchmark_ends_with_one_json_object(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script(run[0]).main(["--smoke", *run[1:]])
    table, _, last = capsys.readouterr().out.strip().rpartition("\n")
    record = json.loads(last)
    assert record["smoke"] is True and record["benchmark"].startswith(run[0]) and table
    rows = [row for value in record.values() if isinstance(value, list) and value for row in value]
    assert rows and all(math.isfinite(number) for number in numbers(rows))
    assert not list(tmp_path.iterdir()), "a smoke run leaves nothing behind"


def test_an_option_that_is_given_wins_over_the_smoke_run(capsys: pytest.CaptureFixture[str]) -> None:
    script("codecs").main(["--smoke", "--width", "32", "--specs", "int8"])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["width"] == 32 and [row["codec"] for row in record["rows"]] == ["int8"]


def answer(p: list[float], ties: str, status: Status = "ok") -> Answer:
    shortlist = [Candidate(f"c{i}", 0.9 - i / 10) for i in range(len(p))]
    scores = PairScores(
        np.array(p), np.zeros((len(p), 2)), np.zeros(len(p)), np.zeros(len(p)), np.zeros(len(p), np.int64),
        (status,) * len(p),
    )  # fmt: skip
    tally = RunStats(queries=1, requested=len(p))
    tally.status[status] = len(p)
    ranking = fuse(shortlist, scores, "p-only", ties=ties)
    return Answer(Item("q"), shortlist, ranking, len(p), {"second_look": [{}]}, tally)


@pytest.mark.parametrize(
    "p, ties, tied",
    [
        ([0.923, 0.928, 0.1], "coarse", False),
        ([0.923, 0.928, 0.1], "released-code", True),  # both are 0.92 there
        ([0.9, 0.9 + 1e-7, 0.1], "repaired", True),
        ([0.1, 0.1, 0.9], "released-code", False),  # not at the top
        ([0.9], "coarse", False),
    ],
)
def test_a_tie_is_one_by_the_rule_that_breaks_it(p: list[float], ties: str, tied: bool) -> None:
    assert script("retllm").tied(answer(p, ties)) is tied


def test_without_a_score_the_coarse_order_counts_as_it_does_for_everybody() -> None:
    module = script("retllm")
    task = module.Task("image→image", [Item("q")], {}, {"q": {"c0"}}, {})
    unread: Any = module.row("written", task, [answer([np.nan] * 3, "coarse", "parse_error")], 1.0, None)
    assert unread["success@1"] == 1.0 and unread["parse_errors"] == 1.0 and unread["tie_rate"] == 0.0


@pytest.mark.parametrize("name, size", [("scenes (small)", "SMALL"), ("scenes (full)", "FULL")])
def test_budget_takes_the_scenes_that_the_run_was_over(
    name: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = script("budget")
    built: list[Any] = []
    monkeypatch.setattr(budget, "build", lambda *arguments: built.append(arguments))
    budget.scenes_of(tmp_path, {"dataset": name})
    assert built == [(tmp_path / "dataset", getattr(scenes, size))]


def test_budget_refuses_a_run_over_anything_else_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"dataset": "ILIAS"}')
    done = subprocess.run([sys.executable, FOLDER / "budget.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and "ILIAS" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
