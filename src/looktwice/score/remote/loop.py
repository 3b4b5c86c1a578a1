"""Run requests on one event loop in a thread of its own, for callers that know no asyncio."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_lock = threading.Lock()
_running: dict[int, asyncio.AbstractEventLoop] = {}


def loop() -> asyncio.AbstractEventLoop:
    """Return this process's loop for requests, which runs in a thread; a forked child gets a new one."""
    with _lock:
        if os.getpid() not in _running:
            _running.clear()
            made = _running[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=made.run_forever, name="looktwice-requests", daemon=True).start()
        return _running[os.getpid()]


def wait(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine and return its result; an interruption cancels it."""
    future: Future[R] = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def each(jobs: Iterable[T], ask: Callable[[T], Awaitable[R]], workers: int) -> Iterator[tuple[T, R]]:
    """Yield jobs with the results of `ask` as they come; `workers` jobs run at once, and jobs begin in order.

    An exception of `ask` cancels the others and is raised. So does leaving the iteration early.
    """
    done: queue.SimpleQueue[tuple[T, R] | None] = queue.SimpleQueue()
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            done.put((job, await ask(job)))

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    future = asyncio.run_coroutine_threadsafe(all_of_them(), loop())
    future.add_done_callback(lambda _: done.put(None))
    try:
        while (one := done.get()) is not None:
            yield one
        _raise_first(future)
    finally:
        future.cancel()


def _raise_first(future: Future[None]) -> None:
    try:
        future.result()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
