"""Turns on the device: fair, limited, stopped when nobody waits, and never in the way of a first look."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Running, running

from looktwice.errors import ModelError
from looktwice.score import Scorer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.serve import Settings
from looktwice.serve.device_queue import DeviceQueue, _Turn
from looktwice.serve.problems import Problem
from looktwice.serve.ticket import Ticket, current
from looktwice.types import Item, PairScores

SECONDS = 0.004  # a pair


class Slow(Scorer):
    """Takes a fixed time for a pair, and notes the order in which queries were served."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.fails = False
        self.hold: threading.Event | None = None

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        if self.fails:
            raise ModelError("/home/secret/weights.bin is broken")
        self.log.append((str(query.text), len(candidates)))
        time.sleep(SECONDS * len(candidates))
        if self.hold is not None:
            self.hold.wait(20)
        p = np.array([len(str(c.text)) / 100 for c in candidates], np.float32)
        labels = np.zeros((len(p), 2), np.float32)
        zero = np.zeros(len(p), np.float32)
        return PairScores(p, labels, zero, zero, np.full(len(p), -1, np.int64), ("ok",) * len(p))


@pytest.fixture(scope="module")
def slow() -> Slow:
    return Slow()


@pytest.fixture(scope="module")
def server(drawings: Path, slow: Slow) -> Iterator[Running]:
    settings = Settings(tables=(drawings,), mllm="slow", max_queued_pairs=1500, max_requests=12)
    with running(settings, slow) as made:
        yield made


@pytest.fixture(autouse=True)
def idle(server: Running, slow: Slow) -> Iterator[None]:
    """Each test begins and ends with an empty queue: no pair is ever counted twice or lost."""
    slow.log.clear()
    yield
    until = time.monotonic() + 5
    while (server.service.gate.pairs or server.service.gate.requests) and time.monotonic() < until:
        time.sleep(0.02)
    assert (server.service.gate.pairs, server.service.gate.requests) == (0, 0)


def body(query: str, count: int, **more: Any) -> dict[str, Any]:
    return {"query": query, "documents": [f"{query} {n}" for n in range(count)], **more}


def later(server: Running, asked: dict[str, Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def ask() -> None:
        answer = httpx.post(f"{server.url}/v1/rerank", json=asked, timeout=60, trust_env=False)
        found.extend([answer, time.monotonic()])

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def test_ten_pairs_do_not_wait_behind_a_thousand(server: Running, slow: Slow) -> None:
    big, found = later(server, body("big", 1000))
    while not slow.log:
        time.sleep(0.005)
    begin = time.monotonic()
    assert server.post("/v1/rerank", body("small", 10)).status_code == 200
    took = time.monotonic() - begin
    big.join()
    assert found[0].status_code == 200 and len(found[0].json()["results"]) == 1000
    assert took < 1.2 < 1000 * SECONDS < found[1] - begin + 1
    assert ("small", 10) in slow.log[:-3]


def test_a_full_queue_is_refused_with_a_time_to_come_back(server: Running) -> None:
    big, found = later(server, body("big", 800))
    time.sleep(0.3)
    answer = server.post("/v1/rerank", body("more", 800))
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert server.post("/v1/rerank", body("small", 5)).status_code == 200
    big.join()
    assert found[0].status_code == 200


def test_a_request_that_could_never_fit_is_told_so(server: Running) -> None:
    table = {"query": {"text": "a"}, "like": ["scene-001.jpg"] * 32, "shortlist": 40, "k": 5}
    answer = server.post("/v1/search", {**table, "like": ["scene-001.jpg"] * 32})
    assert answer.status_code in (200, 413)
    answer = server.post("/v1/explain", {"query": {"text": "a"}, "candidate": {"text": "b"}, "cells": 401})
    assert answer.status_code == 422


def test_many_small_requests_are_limited_too(server: Running) -> None:
    asked = [later(server, body(f"one {n}", 60)) for n in range(24)]
    for thread, _ in asked:
        thread.join()
    codes = [found[0].status_code for _, found in asked]
    assert set(codes) == {200, 429} and len(codes) == 24
    assert all("retry-after" in found[0].headers for _, found in asked if found[0].status_code == 429)


def test_a_client_that_leaves_stops_the_work(server: Running, slow: Slow) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/v1/rerank", json=body("left", 1000), timeout=0.5)
    time.sleep(0.6)
    done = sum(count for _, count in slow.log)
    assert 0 < done < 500
    time.sleep(0.4)
    assert sum(count for _, count in slow.log) == done


def test_a_stream_that_is_closed_stops_the_work(server: Running, slow: Slow) -> None:
    asked = {"query": {"text": "stream"}, "like": ["scene-001.jpg"] * 8, "shortlist": 40, "stream": True}
    with server.client.stream("POST", "/v1/search", json=asked) as response:
        assert next(response.iter_lines()) == "event: first"
    time.sleep(0.8)
    assert sum(count for _, count in slow.log) < 9 * 40


def test_a_deadline_stops_the_work_and_says_so(server: Running, slow: Slow) -> None:
    begin = time.monotonic()
    answer = server.post("/v1/rerank", body("late", 1000, timeout_s=0.5))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert time.monotonic() - begin < 1.5
    time.sleep(0.4)
    assert sum(count for _, count in slow.log) < 500


def test_a_search_on_a_thread_of_its_own_keeps_deadline_and_stream(
    server: Running, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MllmReranker, "together", 4)  # as for a model on a server, whose queries get threads
    monkeypatch.setattr(slow, "hold", threading.Event())
    asked = {"query": {"text": "beside"}, "like": ["scene-001.jpg"] * 3, "shortlist": 40}
    answer = server.post("/v1/search", {**asked, "timeout_s": 0.5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert slow.hold is not None
    slow.hold.set()
    until = time.monotonic() + 60
    while server.service.gate.requests and time.monotonic() < until:
        time.sleep(0.01)
    assert len(slow.log) <= 1, "only the block in work ends"
    answer = server.post("/v1/search", {**asked, "stream": True})
    assert answer.text.count("event: scores\n") > 1 and "event: end\n" in answer.text


def test_a_first_look_never_waits_for_the_device(server: Running, slow: Slow) -> None:
    big, _ = later(server, body("big", 1000))
    while not slow.log:
        time.sleep(0.005)
    times = []
    for _ in range(5):
        begin = time.monotonic()
        assert server.post("/v1/search", {"query": {"text": "a"}, "rerank": False}).status_code == 200
        times.append(time.monotonic() - begin)
    assert sorted(times)[2] < 0.2
    big.join()


def test_a_broken_model_says_nothing_of_its_insides(server: Running, slow: Slow) -> None:
    slow.fails = True
    try:
        answer = server.post("/v1/rerank", body("fail", 3))
    finally:
        slow.fails = False
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "model_error"
    assert "secret" not in answer.text and "weights" not in answer.text


def test_stopping_ends_what_runs_and_refuses_what_waits(drawings: Path) -> None:
    scorer = Slow()
    scorer.hold = threading.Event()
    with running(Settings(tables=(drawings,), mllm="slow"), scorer) as made:
        asked = [later(made, body(name, 20)) for name in "abc"]
        while made.service.gate.requests < 3 or not scorer.log:
            time.sleep(0.01)
        made.server.should_exit = True
        while made.service.gate.open:
            time.sleep(0.01)
        scorer.hold.set()
        for thread, _ in asked:
            thread.join()
    answers = [found[0] for _, found in asked]
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "stopping" and "retry-after" in refused.headers


# --- the queue itself -------------------------------------------------------------------------------------------------


def serve_all(queue: DeviceQueue, requests: list[tuple[str, int, int]]) -> list[str]:
    """Let requests of (name, pairs, blocks) take turns while the device is held, and return the order of turns."""
    order: list[str] = []
    hold = threading.Event()
    blocker = threading.Thread(target=lambda: queue.run(hold.wait))
    blocker.start()
    threads = []
    for name, pairs, blocks in requests:

        def work(name: str = name, pairs: int = pairs, blocks: int = blocks) -> None:
            current.set(ticket := Ticket(pairs, 60))
            queue.sit()
            for _ in range(blocks):
                queue.run(lambda: (order.append(name), time.sleep(0.01)), pairs // blocks)
            queue.seats.leave(ticket)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        time.sleep(0.02)
    hold.set()
    for thread in (blocker, *threads):
        thread.join(10)
    return order


def test_small_ones_come_first_and_large_ones_are_not_starved() -> None:
    queue = DeviceQueue()
    order = serve_all(queue, [("L", 800, 8), *((f"s{n}", 8, 1) for n in range(9))])
    assert order.index("L") <= 3
    assert [name for name in order if name != "L"] == [f"s{n}" for n in range(9)]
    assert order.index("s8") <= 12
    queue.close()


def test_a_few_large_ones_take_turns_and_the_others_wait() -> None:
    queue = DeviceQueue()
    order = serve_all(queue, [(name, 400, 4) for name in "ABCDEF"])
    assert set(order[:4]) == set("ABCD") and "F" not in order[:12]
    assert sorted(order) == sorted("ABCDEF" * 4)
    queue.close()


def test_ended_requests_and_a_closed_queue_answer_at_once() -> None:
    queue = DeviceQueue()
    ticket = Ticket(10, 60)
    held, hold = threading.Event(), threading.Event()
    blocker = threading.Thread(target=lambda: queue.run(lambda: (held.set(), hold.wait())))
    blocker.start()
    assert held.wait(10)
    problems: list[Problem] = []

    def wait() -> None:
        current.set(ticket)
        try:
            queue.run(lambda: None, 1)
        except Problem as problem:
            problems.append(problem)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not queue._waiting:
        time.sleep(0.01)
    ticket.end(Problem(499, "client_left", "The client left."))
    queue.sweep()
    waiting.join(10)
    assert problems[0].code == "client_left"
    hold.set()
    blocker.join()
    queue.close()
    with pytest.raises(Problem, match="stopping"):
        queue.run(lambda: None)


def test_blocks_follow_the_speed_of_the_device() -> None:
    queue = DeviceQueue()
    assert queue.block == 16
    for rate, size in ((1, 4), (20, 16), (90, 64), (10_000, 128)):
        queue.rate = rate
        assert queue.block == size  # alone: twice BLOCK_SECONDS
    queue._waiting.append(_Turn(Ticket(1, 1), 1, lambda: None))
    queue.rate = 90
    assert queue.block == 32
    queue._waiting.clear()
    queue.close()
