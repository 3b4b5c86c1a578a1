"""Keep what was made last, bounded by entries and by bytes, shared by threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Lru(Generic[V]):
    """Keeps at most `entries` values of `room` bytes together; the least recently used go first.

    `size` gives the bytes of a value. The newest `least` values stay, however large they are.
    """

    def __init__(self, entries: int, room: int, size: Callable[[V], int], least: int = 0) -> None:
        self.entries = entries
        self.room = room
        self.bytes = 0
        self._size = size
        self._least = least
        self._kept: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> V | None:
        """Return the value of `key`, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def obtain(self, key: Hashable, make: Callable[[], V]) -> V:
        """Return the value of `key`; make it if it is missing. Two threads may both make it; both get the same one."""
        kept = self.get(key)
        return self.put(key, make()) if kept is None else kept

    def put(self, key: Hashable, value: V) -> V:
        """Store and return `value`; if another thread has stored one under `key` meanwhile, return that."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
            self._kept[key] = value
            self.bytes += self._size(value)
            while len(self._kept) > self._least and (len(self._kept) > self.entries or self.bytes > self.room):
                self.bytes -= self._size(self._kept.popitem(last=False)[1])
            return value
