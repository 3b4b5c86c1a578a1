"""Several things at once, in order."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

import pytest

from looktwice.search.at_once import in_order


def test_results_keep_their_order_and_no_more_than_asked_are_under_way() -> None:
    now, most = 0, 0
    lock = threading.Lock()

    def work(n: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02 if n % 2 else 0.001)
        with lock:
            now -= 1
        return n * n

    assert [found for found, _ in in_order(work, range(12), 3)] == [n * n for n in range(12)]
    assert most == 3
    assert list(in_order(work, [], 3)) == []


def test_threads_see_the_context_of_the_caller() -> None:
    asked: ContextVar[str] = ContextVar("asked", default="nothing")
    asked.set("a request")
    assert [found for found, _ in in_order(lambda _: asked.get(), range(3), 2)] == ["a request"] * 3


def test_one_at_a_time_stays_in_the_thread_of_the_caller() -> None:
    assert set(in_order(lambda _: threading.get_ident(), range(3), 1)) == {(threading.get_ident(), 1.0)}


def test_an_error_comes_where_its_result_would_have() -> None:
    def work(n: int) -> int:
        return 10 // (2 - n)

    found = in_order(work, range(5), 2)
    assert [next(found)[0], next(found)[0]] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_seconds_that_several_spend_together_add_up_to_the_time_that_passed() -> None:
    barrier = threading.Barrier(3)

    def work(_: int) -> float:
        barrier.wait()
        begin = time.perf_counter()
        time.sleep(0.05)
        passed = time.perf_counter() - begin
        barrier.wait()
        return passed

    assert 0.05 <= sum(passed / beside for passed, beside in in_order(work, range(3), 3)) < 0.15
