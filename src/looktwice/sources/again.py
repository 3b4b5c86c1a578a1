"""Iterate a generator function as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from looktwice.sources.records import Source, Unreadable


@dataclass(frozen=True, slots=True)
class Again:
    """A generator function with its arguments, so that a scan can be iterated again."""

    start: Callable[[], Iterator[Source | Unreadable]]

    def __iter__(self) -> Iterator[Source | Unreadable]:
        return self.start()
