"""Read, hash and decode items, a few ahead of the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from looktwice.errors import MediaError
from looktwice.indexing.batches import Failed, ScannedItem
from looktwice.indexing.failures import SKIPPED
from looktwice.sources import Source, exif, images
from looktwice.sources.formats import NEEDS
from looktwice.sources.prefetch import pixels_of, prefetch
from looktwice.sources.previews import preview
from looktwice.sources.reading import WHOLE, Reading
from looktwice.store import TableReader, metadata_json

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row of the table; `metadata` is the stored JSON. `preview`: the table keeps a preview of it."""

    uri: str
    root: str
    sha256: str
    text: str | None
    metadata: str
    has_image: bool
    preview: bool = False


def known_rows(table: TableReader | None, ids: Sequence[str], side: int) -> dict[str, KnownRow]:
    """Return the rows of a table by id; with `side`, whether it keeps their previews."""
    if table is None:
        return {}
    shown = table.previewed(ids) if side else {}
    rows = table.lookup(ids, ["id", "uri", "root", "sha256", "text", "metadata", "width"])
    found = ((row.pop("id"), row.pop("width") > 0, row) for row in rows)
    return {
        name: KnownRow(**row, has_image=image, preview=shown.get(name) == row["sha256"]) for name, image, row in found
    }


@dataclass(frozen=True, slots=True)
class Decoded:
    """One item that was read. `same`: the table holds its vector, as bytes and text are unchanged; `image` is None."""

    source: Source
    sha256: str
    image: Image | None
    size: images.Size
    known: KnownRow | None
    same: bool
    preview: bytes = b""

    @property
    def unchanged(self) -> bool:
        """Return whether the item equals its row in the table."""
        source, known = self.source, self.known
        if known is None or not self.same or (source.uri, source.root) != (known.uri, known.root):
            return False
        return metadata_json(source.metadata) == known.metadata


@dataclass(frozen=True, slots=True)
class Loading:
    """How items are read: by which rules, with previews of `side` pixels (0: none), with what cameras wrote."""

    reading: Reading = WHOLE
    side: int = 0
    exif: bool = False


PLAIN = Loading()

Planned: TypeAlias = Failed | ScannedItem | tuple[Source, KnownRow | None]
"""A failure, an item that was deleted on purpose, or a source to read with its row in the table."""


def load_ahead(plan: Iterable[Planned], threads: int, how: Loading = PLAIN) -> Iterator[Decoded | Failed | ScannedItem]:
    """Read and decode the planned items in order, with bounded memory."""
    return prefetch(plan, lambda one: load(*one, how) if isinstance(one, tuple) else one, _pixels, threads)


def load(source: Source, known: KnownRow | None, how: Loading = PLAIN) -> Decoded | Failed:
    """Read one item, and decode it if it is new, has changed or lacks its preview."""
    stage = "read"
    try:
        data = source.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if how.exif and source.has_image:
            source = _with_exif(source, data)
        now = (sha256, source.text, source.has_image)
        same = known is not None and (known.sha256, known.text, known.has_image) == now
        if same and known is not None:
            shown = _preview(source, data, how.side) if source.has_image and not known.preview else b""
            return Decoded(source, sha256, None, (0, 0), known, same, shown)
        if not source.has_image:
            return Decoded(source, sha256, None, (0, 0), known, same)
        stage = "decode"
        image, size = source.decode(data, how.reading)
        large = max(image.size) >= min(how.side, max(size))
        shown = _preview(source, data, how.side, image if large else None)
        return Decoded(source, sha256, image, size, known, same, shown)
    except MediaError as error:
        return Failed.of(source, SKIPPED if error.reason in NEEDS else stage, error.reason, error.detail)


def _with_exif(source: Source, data: bytes) -> Source:
    """Return a source with what the camera wrote; a list's own metadata counts more, a folder's file has none."""
    own = source.metadata
    if source.root.endswith("/"):
        own = {key: value for key, value in own.items() if key not in exif.COLUMNS}
    return replace(source, metadata={**exif.metadata(data, source.uri), **own})


def _preview(source: Source, data: bytes, side: int, image: Image | None = None) -> bytes:
    """Return the preview of an item, from `image` or decoded anew; "" if the table keeps none."""
    if not side:
        return b""
    try:
        return preview(image or source.decode(data, Reading(side=side // 2))[0], side)
    except MediaError:  # of bytes that could be decoded once
        return b""


def _pixels(one: Decoded | Failed | ScannedItem) -> int:
    return pixels_of(one.image) if isinstance(one, Decoded) else 0
