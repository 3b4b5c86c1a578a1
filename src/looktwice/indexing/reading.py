"""Reading, hashing and decoding, a few items ahead of the encoder and in threads (Pillow decodes without the GIL)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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


def load_ahead(plan: Iterable[Planned], threads: int) -> Iterator[Loaded | Failed]:
    """Read and decode what is planned, in its order, with bounded memory."""
    waiting: deque[Failed | Future[Loaded | Failed]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="looktwice-read")
    try:
        for one in plan:
            while len(waiting) >= AHEAD or _pixels(waiting) > AHEAD_PIXELS:
                yield _result(waiting.popleft())
            waiting.append(one if isinstance(one, Failed) else pool.submit(load, *one))
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def load(source: Source, known: Known | None) -> Loaded | Failed:
    """Read one item and decode it where it is new or has changed."""
    stage = "read"
    try:
        data = source.read()
        sha256 = hashlib.sha256(data).hexdigest()
        same = known is not None and (known.sha256, known.text) == (sha256, source.text)
        if same or not source.picture:
            return Loaded(source, sha256, None, (0, 0), known, same)
        stage = "decode"
        image, size = media.load(data)
        return Loaded(source, sha256, image, size, known, same)
    except MediaError as error:
        return Failed(source.uri, source.root, stage, error.reason, error.detail)


def _result(one: Failed | Future[Loaded | Failed]) -> Loaded | Failed:
    return one if isinstance(one, Failed) else one.result()


def _pixels(waiting: Iterable[Failed | Future[Loaded | Failed]]) -> int:
    done = (one.result() for one in waiting if not isinstance(one, Failed) and one.done())
    return sum(one.image.width * one.image.height for one in done if isinstance(one, Loaded) and one.image)
