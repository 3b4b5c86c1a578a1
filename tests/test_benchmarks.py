"""What the benchmarks count, where it can go wrong without being seen in a table."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from looktwice.manifest import Tally
from looktwice.rank import fuse
from looktwice.retrieve import Answer
from looktwice.types import Candidate, Item, PairScores, Status

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts set variables of their own; they go with the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    yield


def answer(p: list[float], ties: str, status: Status = "ok") -> Answer:
    shortlist = [Candidate(f"c{i}", 0.9 - i / 10) for i in range(len(p))]
    scores = PairScores(
        np.array(p), np.zeros((len(p), 2)), np.zeros(len(p)), np.zeros(len(p)), np.zeros(len(p), np.int64),
        (status,) * len(p),
    )  # fmt: skip
    tally = Tally(queries=1, requested=len(p))
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
