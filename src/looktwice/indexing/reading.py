"""Reading, hashing and decoding, a few items ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from looktwice.errors import MediaError
from looktwice.indexing.batches import Failed
from looktwice.sources import Source, images
from looktwice.sources.prefetch import pixels_of, prefetch
from looktwice.store import metadata_json

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Known:
    """A row as the table has it; `metadata` is JSON as stored."""

    uri: str
    root: str
    sha256: str
    text: str | None
    metadata: str
    picture: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """One item, read. `same` says that the table has its vector already: bytes and text are what they were; then
    `image` is None."""

    source: Source
    sha256: str
    image: Image | None
    size: images.Size
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
    return prefetch(plan, lambda one: one if isinstance(one, Failed) else load(*one), _pixels, threads)


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
        image, size = images.load(data)
        return Loaded(source, sha256, image, size, known, same)
    except MediaError as error:
        return Failed.of(source, stage, error.reason, error.detail)


def _pixels(one: Loaded | Failed) -> int:
    return pixels_of(one.image) if isinstance(one, Loaded) else 0
