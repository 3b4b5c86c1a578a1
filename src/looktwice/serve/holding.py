"""Bound the memory that requests hold while they wait: bodies, fetched files, decoded queries, large answers."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Lock

from looktwice.serve import problems
from looktwice.serve.problems import Problem


class HeldBytes:
    """The bytes that all requests of a server hold together, and their limit."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self.lock = Lock()


class Holding:
    """The bytes that one request holds, from its first byte to the end of its answer."""

    def __init__(self, memory: HeldBytes) -> None:
        self._memory, self.held = memory, 0

    def add(self, nbytes: int) -> None:
        """Count bytes. Raises Problem: 413 if the request alone holds too many, 429 if all together do."""
        memory = self._memory
        with memory.lock:
            if self.held + nbytes > memory.most:
                raise Problem(
                    413,
                    "request_too_large",
                    f"A request and its answer may hold {memory.most:,} bytes; take fewer or smaller images.",
                )
            if memory.held + nbytes > memory.most:
                raise problems.busy(1)
            self.held += nbytes
            memory.held += nbytes

    def release(self) -> None:
        """Give everything back."""
        with self._memory.lock:
            self._memory.held -= self.held
            self.held = 0


current: ContextVar[Holding | None] = ContextVar("holding", default=None)


def hold(nbytes: int) -> None:
    """Count bytes to the current request, if there is one. Raises Problem as `Holding.add`."""
    holding = current.get()
    if holding is not None:
        holding.add(nbytes)
