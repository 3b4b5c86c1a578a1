"""Define what a run tells about its progress."""

from __future__ import annotations

from typing import Protocol


class Bar(Protocol):
    """A receiver of the run's progress."""

    def at(self, done: int) -> None: ...

    def total(self, n: int) -> None: ...
