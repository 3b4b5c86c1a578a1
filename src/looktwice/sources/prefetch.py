"""Pictures decoded ahead of whoever takes them, in threads (Pillow decodes without the GIL) and with bounded memory."""

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
"""At most this many are begun before the first of them is taken…"""

AHEAD_PIXELS = 2**26
"""…and no more are begun while finished ones wait with this many pixels (200 MB)."""


class PixelBudget:
    """Lets items be decoded in their order, and only while few pixels wait to be taken.

    In order, because whoever takes them waits for the first: nothing that comes later may use up what that one needs.
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
        """Let everybody through: the run is over."""
        with self._changed:
            self._open = False
            self._changed.notify_all()


class Budget:
    """Lets work begin while few pixels are being worked on; what is larger than all that is allowed goes alone."""

    def __init__(self, pixels: int) -> None:
        self._allowed, self._held = pixels, 0
        self._changed = Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels fit, and count them until the work is done."""
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
    """How many pixels a picture has; none has none."""
    return 0 if image is None else image.width * image.height


def prefetch(jobs: Iterable[T], work: Callable[[T], R], pixels: Callable[[R], int], threads: int) -> Iterator[R]:
    """Yield `work` of each job, in order; `pixels` says how many a result holds. What `work` raises is raised here."""
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
