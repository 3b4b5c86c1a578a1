"""Limit how many requests a server gets at once: more while it keeps up, fewer when it refuses or slows down."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

START = 4
CALM = 0.5  # of the window may wait inside the server before it stops growing
CROWDED = 0.9  # and from here on it shrinks


class RequestWindow:
    """A limit of concurrent requests, between 1 and `most`. Use it as an async context around one request.

    The share of requests that wait inside the server is estimated from the fastest answer so far, as TCP Vegas does.
    Not thread-safe: it belongs to one event loop.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(START, most))
        self.busy = 0
        self._fastest = math.inf
        self._usual = 0.0
        self._closed_until = 0.0
        self._halved = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while (pause := self._closed_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        while self.busy >= int(self.limit):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake()  # the turn may have come already, and must not be lost
                raise
        self.busy += 1

    async def __aexit__(self, *_: object) -> None:
        self.busy -= 1
        self._wake()

    def answered(self, seconds: float) -> None:
        """Learn from an answer: grow while the server keeps up, shrink while requests pile up inside it."""
        self._usual = seconds if self._usual == 0 else 0.8 * self._usual + 0.2 * seconds
        self._fastest = min(self._fastest * 1.001, seconds)  # a slow drift upwards forgets a server that was idle once
        waiting = 1 - self._fastest / max(self._usual, self._fastest)
        if waiting < CALM or self.limit < START:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        elif waiting > CROWDED:
            self.limit = max(1.0, self.limit - 1 / self.limit)
        self._wake()

    def refused(self, pause: float) -> None:
        """Learn from a 429 or 503: halve, once per round of requests, and send nothing for `pause` seconds."""
        now = time.monotonic()
        self._closed_until = max(self._closed_until, now + pause)
        if now - self._halved > max(self._usual, 0.05):
            self.limit, self._halved = max(1.0, self.limit / 2), now

    def _wake(self) -> None:
        free = int(self.limit) - self.busy
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
