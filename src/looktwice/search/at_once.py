"""Work on several things at once and hand on the results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Crowd:
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


def in_order(work: Callable[[T], R], things: Iterable[T], at_once: int) -> Iterator[R]:
    """Yield the results of `work`, in the order of `things`; up to `at_once` of them are under way.

    With 1, all runs in the caller's thread. Threads are daemons, so that an interruption need not wait for them.
    """
    if at_once == 1:
        yield from map(work, things)
        return
    under_way: deque[Future[R]] = deque()
    for thing in things:
        under_way.append(_begun(work, thing))
        if len(under_way) == at_once:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _begun(work: Callable[[T], R], thing: T) -> Future[R]:
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(work(thing))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="query", daemon=True).start()
    return future
