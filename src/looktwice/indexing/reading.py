"""Reading, hashing and decoding, a few items ahead of the encoder and in threads (Pillow decodes without the GIL)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from threading import Condition
from typing import TYPE_CHECKING, TypeAlias

from looktwice import media
from looktwice.errors import MediaError
from looktwice.sources import Source
from looktwice.store import metadata_json

if TYPE_CHECKING:
    from PIL.Image import Image

AHEAD = 64
"""At most this many items are read ahead of the encoder…"""

AHEAD_PIXELS = 2**26
"""…and no more are begun while decoded ones wait with this many pixels (200 MB)."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the table says of an id; `metadata` is JSON as stored."""

    uri: str
    root: str
    sha256: str
    text: str | None
    metadata: str
    picture: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """One failure, ready for the ledger."""

    uri: str
    root: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One item, read. `same` says that the table has its vector already: bytes and text are what they were; then
    `image` is None."""

    source: Source
    sha256: str
    image: Image | None
    size: media.Size
    known: Known | None
    same: bool

    @property
    def unchanged(self) -> bool:
        """Whether nothing at all is different from what the table says."""
        source, known = self.source, self.known
        if known is None or not self.same or (source.uri, source.root) != (known.uri, known.root):
            return False
        return metadata_json(source.metadata) == known.metadata


Planned: TypeAlias = Failed | tuple[Source, Known | None]


class Gate:
    """Lets items be decoded in their order, and only while few pixels wait for the encoder.

    In order, because the encoder waits for the first: nothing that comes later may use up what the first one needs.
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


def load_ahead(plan: Iterable[Planned], threads: int) -> Iterator[Loaded | Failed]:
    """Read and decode what is planned, in its order, with bounded memory."""
    waiting: deque[Failed | Future[Loaded | Failed]] = deque()
    gate = Gate(AHEAD_PIXELS)
    numbers = count()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="looktwice-read")

    def read(number: int, source: Source, known: Known | None) -> Loaded | Failed:
        gate.enter(number)
        one = load(source, known)
        gate.hold(_pixels(one))
        return one

    def first() -> Loaded | Failed:
        one = waiting.popleft()
        if isinstance(one, Failed):
            return one
        loaded = one.result()
        gate.hold(-_pixels(loaded))
        return loaded

    try:
        for one in plan:
            while len(waiting) >= AHEAD:
                yield first()
            waiting.append(one if isinstance(one, Failed) else pool.submit(read, next(numbers), *one))
        while waiting:
            yield first()
    finally:
        gate.close()
        pool.shutdown(cancel_futures=True)


def load(source: Source, known: Known | None) -> Loaded | Failed:
    """Read one item and decode it where it is new or has changed."""
    stage = "read"
    try:
        data = source.read()
        sha256 = hashlib.sha256(data).hexdigest()
        now = (sha256, source.text, source.picture)
        same = known is not None and (known.sha256, known.text, known.picture) == now
        if same or not source.picture:
            return Loaded(source, sha256, None, (0, 0), known, same)
        stage = "decode"
        image, size = media.load(data)
        return Loaded(source, sha256, image, size, known, same)
    except MediaError as error:
        return Failed(source.uri, source.root, stage, error.reason, error.detail)


def _pixels(one: Loaded | Failed) -> int:
    return one.image.width * one.image.height if isinstance(one, Loaded) and one.image else 0
