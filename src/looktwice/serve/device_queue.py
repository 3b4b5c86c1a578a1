"""Give requests turns on one device: blocks of pairs, so that ten pairs do not wait behind a thousand.

One thread runs all blocks. Small requests come before large ones, in order of arrival, but every fourth turn belongs to
a large one. Large requests take turns with each other. `seats` says which requests may ask for turns at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from looktwice.serve import problems
from looktwice.serve.seats import Seats
from looktwice.serve.ticket import Ticket, current

BLOCK_SECONDS = 0.5
"""How long a block should take: a newcomer waits for one. A request that is alone gets blocks of twice as long."""

BLOCKS = (4, 8, 16, 32, 64, 128)
FIRST_BLOCK = 16
R = TypeVar("R")


class _Turn:
    """A block that waits for the device."""

    def __init__(self, ticket: Ticket, pairs: int, work: Callable[[], Any]) -> None:
        self.ticket, self.pairs, self.work = ticket, pairs, work
        self.future: Future[Any] = Future()


class DeviceQueue:
    """The queue of one device and the thread that works through it."""

    def __init__(self) -> None:
        self._waiting: list[_Turn] = []
        self._news = threading.Condition()
        self._turns, self._closed = 0, False
        self.seats = Seats()
        self.rate = 0.0  # pairs per second while the device works
        self.pairs_done = 0
        self.busy_seconds = 0.0
        self.waited: Callable[[float], None] = lambda seconds: None
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    @property
    def block(self) -> int:
        """Return the number of pairs that take about BLOCK_SECONDS, one of BLOCKS."""
        if not self.rate:
            return FIRST_BLOCK
        seconds = BLOCK_SECONDS if self._waiting else 2 * BLOCK_SECONDS
        return next((size for size in reversed(BLOCKS) if size <= self.rate * seconds), BLOCKS[0])

    def run(self, work: Callable[[], R], pairs: int = 0) -> R:
        """Run `work` on the device's thread when the current request's turn comes. Raises what it raises.

        Work of the device's own thread, and of threads that serve no request, runs at once or before all others.
        """
        if threading.current_thread() is self._thread:
            return work()
        ticket = current.get() or Ticket(0, 1e9)
        ticket.check()
        turn = _Turn(ticket, pairs, work)
        with self._news:
            if self._closed:
                raise problems.stopping()
            self._waiting.append(turn)
            self._news.notify_all()
        result: R = turn.future.result()
        return result

    def sit(self) -> None:
        """Wait until the current request may decode its images and ask for turns. Raises Problem if it ends first."""
        if (ticket := current.get()) is not None:
            self.seats.take(ticket)

    def sweep(self) -> None:
        """Answer waiting turns of ended requests now, rather than when their turn comes."""
        self.seats.wake()
        with self._news:
            for turn in [turn for turn in self._waiting if turn.ticket.ended is not None]:
                self._waiting.remove(turn)
                assert turn.ticket.ended is not None
                turn.future.set_exception(turn.ticket.ended)

    def close(self) -> None:
        """Refuse what waits and end the thread after the block in work."""
        self.seats.wake(closed=True)
        with self._news:
            self._closed = True
            for turn in self._waiting:
                turn.future.set_exception(problems.stopping())
            self._waiting.clear()
            self._news.notify_all()

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            try:
                turn.ticket.check()
                turn.ticket.begun = True
                with self._timed(turn.pairs):
                    result = turn.work()
            except BaseException as error:  # belongs to the request, whatever it is
                turn.future.set_exception(error)
            else:
                turn.future.set_result(result)

    def _next(self) -> _Turn | None:
        with self._news:
            while not self._waiting:
                if self._closed:
                    return None
                self._news.wait()
            turn = self._choose()
            self._waiting.remove(turn)
            turn.ticket.served = time.monotonic()
            if not turn.ticket.begun:
                self.waited(turn.ticket.served - turn.ticket.born)
            return turn

    def _choose(self) -> _Turn:
        self._turns += 1
        in_order = sorted(self._waiting, key=lambda turn: turn.ticket.number)
        small = [turn for turn in in_order if turn.ticket.small]
        large = [turn for turn in in_order if not turn.ticket.small]
        if small and (not large or self._turns % 4):
            return small[0]
        return min(large, key=lambda turn: turn.ticket.served)

    @contextmanager
    def _timed(self, pairs: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        spent = time.perf_counter() - begin
        self.busy_seconds += spent
        self.pairs_done += pairs
        if pairs:
            rate = pairs / max(spent, 1e-6)
            self.rate = rate if not self.rate else 0.8 * self.rate + 0.2 * rate
