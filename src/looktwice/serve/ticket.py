"""Hold one request's place in line for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from itertools import count
from typing import Any

from looktwice.serve import problems

SMALL = 64
"""A request of up to this many pairs counts as small."""

_numbers = count()


class Ticket:
    """One request's place in the queue: its pairs, its deadline, and whether somebody still wants the answer.

    `tell` is called with the ids and scores of each block, on the request's own thread.
    """

    def __init__(self, pairs: int, seconds: float) -> None:
        self.number = next(_numbers)
        self.pairs, self.seconds = pairs, seconds
        self.tell: Callable[[Any, Any], None] | None = None
        self.deadline = time.monotonic() + seconds
        self.born = time.monotonic()
        self.begun = False
        self.served = 0.0  # when it last had a turn
        self.ended: problems.Problem | None = None

    @property
    def small(self) -> bool:
        """Return whether it comes before large ones."""
        return self.pairs <= SMALL

    def end(self, why: problems.Problem) -> None:
        """Stop the work before the next block."""
        self.ended = self.ended or why

    def check(self) -> None:
        """Raise the Problem that ended this request, if any."""
        if self.ended is None and time.monotonic() > self.deadline:
            self.ended = problems.late(self.seconds)
        if self.ended is not None:
            raise self.ended


current: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
