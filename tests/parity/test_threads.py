"""Threads share a model and an engine: answers are those of one request after the other."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from looktwice.score.load import scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in
from looktwice.types import Item

Get = Callable[[str], Mllm]


def engine(mllm: Mllm, **settings: Any) -> Engine:
    fast = scorer(mllm, built_in.get("object"), path="fast", **settings)
    assert isinstance(fast, Engine)
    return fast


def test_threads_may_share_a_model(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    model = mllm("internvl")
    expected = engine(model).score(query["image"], candidates).p
    shared = engine(model, batch_size=1)
    slow = scorer(model, built_in.get("object"), path="reference")
    judges = [shared, slow, shared, engine(model, batch_size=3), shared.with_prompt("object")]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda judge: judge.score(query["image"], candidates).p, judges * 2):
            assert found == pytest.approx(expected, abs=1e-5)
    for module in model.model.modules():
        assert not module._forward_pre_hooks, "scoring leaves the model as it was"


def asked_by_turns(fast: Engine, query: dict[str, Item], candidates: list[Item]) -> list[Item]:
    """Queries of every kind, two of them with stored tokens."""
    stored = fast.visual_tokens(candidates[:2])
    return [
        query["image"],
        *(Item(f"q{i}", tokens=tokens) for i, tokens in enumerate(stored)),
        replace(candidates[2], text=None),
    ]


@pytest.mark.parametrize("room", [1 << 30, 0])
def test_threads_that_ask_different_queries_get_the_answers_of_one_after_the_other(
    mllm: Get, query: dict[str, Item], candidates: list[Item], room: int
) -> None:
    alone = engine(mllm("internvl"))
    asked = asked_by_turns(alone, query, candidates)
    expected = [alone.score(one, candidates).p for one in asked]
    assert min(abs(a - b).max() for a, b in itertools.combinations(expected, 2)) > 1e-4
    shared = engine(mllm("internvl"), cache_bytes=room)
    start = threading.Barrier(4)

    def ask(turn: int) -> list[tuple[int, Any]]:
        start.wait()
        order = [(turn + i) % len(asked) for i in range(2 * len(asked))]
        return [(i, shared.score(asked[i], candidates).p) for i in order]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(ask, range(4)):
            for i, p in found:
                assert p == pytest.approx(expected[i], abs=1e-6)


@pytest.mark.parametrize(("room", "prefixes"), [(1 << 30, 4), (0, 12)])
def test_prefixes_of_several_queries_are_kept_as_far_as_memory_goes(
    mllm: Get,
    query: dict[str, Item],
    candidates: list[Item],
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    prefixes: int,
) -> None:
    fast = engine(mllm("internvl"), cache_bytes=room)
    asked, ran, run_prefix = asked_by_turns(fast, query, candidates), [], Engine._run_prefix
    monkeypatch.setattr(Engine, "_run_prefix", lambda self, pair, n: ran.append(n) or run_prefix(self, pair, n))
    for _ in range(3):
        for one in asked:
            fast.score(one, candidates)
    assert len(ran) == prefixes
    assert len(fast._memory._prefixes) == (4 if room else 1)
