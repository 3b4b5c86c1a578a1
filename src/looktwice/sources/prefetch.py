"""Decode images ahead of the consumer, in threads (Pillow decodes without the GIL) and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Condition
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 64
"""Most jobs that are started before the consumer takes the first result…"""

AHEAD_PIXELS = 2**26
"""…and no job starts while the finished ones hold this many pixels (200 MB)."""


class PixelBudget:
    """A gate that lets items be decoded in order, and only while few decoded pixels wait.

    The order matters, because the consumer waits for the first item: a later one must not use up its budget.
    """

    def __init__(self, pixels: int) -> None:
        self._allowed, self._held, self._turn, self._open = pixels, 0, 0, True
        self._changed = Condition()

    def enter(self, number: int) -> None:
        """Wait until item `number` (0, 1, …) may be decoded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or (number == self._turn and self._held <= self._allowed))
            self._turn += 1
            self._changed.notify_all()

    def hold(self, pixels: int) -> None:
        """Count decoded pixels; a negative number gives them back."""
        with self._changed:
            self._held += pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Open the gate for all waiting threads: the run is over."""
        with self._changed:
            self._open = False
            self._changed.notify_all()


class DecodingBudget:
    """A limit on pixels in work at the same time. An image above the limit is processed alone."""

    def __init__(self, pixels: int) -> None:
        self._allowed, self._held = pixels, 0
        self._changed = Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until `pixels` fit, and count them until the work is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._allowed)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


def pixels_of(image: Image | None) -> int:
    """Return the number of pixels of an image; 0 for None."""
    return 0 if image is None else image.width * image.height


def prefetch(jobs: Iterable[T], work: Callable[[T], R], pixels: Callable[[R], int], threads: int) -> Iterator[R]:
    """Yield `work(job)` for each job, in order. `pixels` returns a result's size. Errors of `work` are raised here."""
    waiting: deque[Future[R]] = deque()
    budget, numbers = PixelBudget(AHEAD_PIXELS), count()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="looktwice-read")

    def done(number: int, job: T) -> R:
        budget.enter(number)
        result = work(job)
        budget.hold(pixels(result))
        return result

    def first() -> R:
        result = waiting.popleft().result()
        budget.hold(-pixels(result))
        return result

    try:
        for job in jobs:
            while len(waiting) >= AHEAD:
                yield first()
            waiting.append(pool.submit(done, next(numbers), job))
        while waiting:
            yield first()
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)
