"""Work on several things at once and hand on the results in order."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import repeat
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class InFlight:
    """Counts how many are inside at once, so that they can share the seconds that they spend together."""

    def __init__(self) -> None:
        self._inside = 0
        self._lock = threading.Lock()

    def enter(self) -> int:
        """Go inside and return how many are there."""
        with self._lock:
            self._inside += 1
            return self._inside

    def leave(self) -> int:
        """Leave and return how many were there."""
        with self._lock:
            self._inside -= 1
            return self._inside + 1


def in_order(work: Callable[[T], R], things: Iterable[T], at_once: int) -> Iterator[tuple[R, float]]:
    """Yield the results of `work` in the order of `things`, each with how many were under way beside it, on average.

    Up to `at_once` are under way. With 1, all runs in the caller's thread, and the number is 1. Threads are daemons, so
    that an interruption need not wait for them.
    """
    return zip(map(work, things), repeat(1.0)) if at_once == 1 else _several(work, things, at_once)


def _several(work: Callable[[T], R], things: Iterable[T], at_once: int) -> Iterator[tuple[R, float]]:
    crowd = InFlight()
    under_way: deque[Future[tuple[R, float]]] = deque()
    for thing in things:
        under_way.append(_begun(crowd, work, thing))
        if len(under_way) == at_once:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _begun(crowd: InFlight, work: Callable[[T], R], thing: T) -> Future[tuple[R, float]]:
    future: Future[tuple[R, float]] = Future()

    def run() -> None:
        before = crowd.enter()
        try:
            made = work(thing)
        except BaseException as error:
            crowd.leave()
            future.set_exception(error)
        else:
            future.set_result((made, (before + crowd.leave()) / 2))

    context = contextvars.copy_context()  # the caller's: a server keeps the request's deadline and seat there
    threading.Thread(target=context.run, args=(run,), name="query", daemon=True).start()
    return future
