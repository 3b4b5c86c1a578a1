"""Read, hash and decode items, a few ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from looktwice.errors import MediaError
from looktwice.indexing.batches import Failed
from looktwice.indexing.failures import SKIPPED
from looktwice.sources import Source, images
from looktwice.sources.formats import NEEDS
from looktwice.sources.prefetch import pixels_of, prefetch
from looktwice.sources.reading import WHOLE, Reading
from looktwice.store import metadata_json

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the table; `metadata` is the stored JSON."""

    uri: str
    root: str
    sha256: str
    text: str | None
    metadata: str
    picture: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """One item that was read. `same`: the table holds its vector, as bytes and text are unchanged; `image` is None."""

    source: Source
    sha256: str
    image: Image | None
    size: images.Size
    known: Known | None
    same: bool

    @property
    def unchanged(self) -> bool:
        """Return whether the item equals its row in the table."""
        source, known = self.source, self.known
        if known is None or not self.same or (source.uri, source.root) != (known.uri, known.root):
            return False
        return metadata_json(source.metadata) == known.metadata


Planned: TypeAlias = Failed | tuple[Source, Known | None]


def load_ahead(plan: Iterable[Planned], threads: int, reading: Reading = WHOLE) -> Iterator[Decoded | Failed]:
    """Read and decode the planned items in order, with bounded memory."""
    return prefetch(plan, lambda one: one if isinstance(one, Failed) else load(*one, reading), _pixels, threads)


def load(source: Source, known: Known | None, reading: Reading = WHOLE) -> Decoded | Failed:
    """Read one item, and decode it if it is new or has changed."""
    stage = "read"
    try:
        data = source.read()
        sha256 = hashlib.sha256(data).hexdigest()
        now = (sha256, source.text, source.picture)
        same = known is not None and (known.sha256, known.text, known.picture) == now
        if same or not source.picture:
            return Decoded(source, sha256, None, (0, 0), known, same)
        stage = "decode"
        image, size = source.decode(data, reading)
        return Decoded(source, sha256, image, size, known, same)
    except MediaError as error:
        return Failed.of(source, SKIPPED if error.reason in NEEDS else stage, error.reason, error.detail)


def _pixels(one: Decoded | Failed) -> int:
    return pixels_of(one.image) if isinstance(one, Decoded) else 0
