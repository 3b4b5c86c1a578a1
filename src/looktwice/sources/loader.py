"""Load the candidates of a shortlist for the second look: images are decoded while the model works, a few at a time.

This module knows where images lie (`CandidateRef`), but no model and no table.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from cachetools import LRUCache

from looktwice.errors import MediaError
from looktwice.sources import Urls, images, read_uri
from looktwice.sources.prefetch import pixels_of, prefetch
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image


CHUNK = 32  # candidates read and scored together; a shortlist may hold thousands
CACHE_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class CandidateRef:
    """A candidate before loading: the uri of its image (None without an image), and its text.

    `urls` says whether a URL of the image may be fetched. `preview` returns a small WebP of the image, or None; it is
    shown if the original is not at hand.
    """

    id: str
    uri: str | None
    sha256: str | None = None
    text: str | None = None
    urls: Urls = "refused"
    preview: Callable[[], bytes | None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LoadError:
    """A placeholder for a candidate that could not be read."""

    id: str
    why: MediaError


T = TypeVar("T")
Loaded: TypeAlias = Item | LoadError
Resolver: TypeAlias = Callable[[Sequence[str]], "list[CandidateRef | LoadError]"]


class ImageLoader:
    """A loader of candidate images. It caches `cache_bytes` of decoded images for the next query's shortlist.

    `chunk_pixels` closes a chunk early: one decoded photo takes up to 100 MB.
    """

    chunk_pixels = 2**28  # 800 MB

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: LRUCache[tuple[str, str | None], Image] = LRUCache(cache_bytes, getsizeof=_bytes)
        self._lock = Lock()

    def query(self, item: Item) -> Item:
        """Return the query as the scorer sees it: here, unchanged."""
        return item

    @property
    def tokens_key(self) -> str:
        """Return the token set that candidates come from; "" for images."""
        return ""

    def settings(self) -> Mapping[str, Any]:
        """Return the settings of this loader for a run's manifest."""
        return {"codec": "pictures"}  # written so since the first format

    def load(self, entries: Sequence[Item | CandidateRef | LoadError]) -> Iterator[list[Loaded]]:
        """Yield the items of `entries` in order, in lists of up to CHUNK; the next ones are read meanwhile.

        An entry without a file passes through. An unreadable image, or one that has changed since it was indexed,
        becomes a LoadError.
        """
        found = prefetch(entries, self._item, _pixels, min(8, os.cpu_count() or 1))
        yield from in_chunks(found, CHUNK, self.chunk_pixels)

    def _item(self, entry: Item | CandidateRef | LoadError) -> Loaded:
        if not isinstance(entry, CandidateRef):
            return entry
        try:
            image = None if entry.uri is None else self._image(entry.uri, entry.sha256, entry.urls)
        except MediaError as error:
            return _from_preview(entry) or LoadError(entry.id, error)
        return Item(entry.id, image, entry.text, uri=entry.uri, sha256=entry.sha256)

    def _image(self, uri: str, sha256: str | None, urls: Urls) -> Image:
        key = (uri, sha256)
        with self._lock:
            known: Image | None = self._cache.get(key)
        if known is not None:
            return known
        image, _ = images.load(read_uri(uri, urls=urls, sha256=sha256))
        with self._lock:
            if _bytes(image) <= self._cache.maxsize:
                self._cache[key] = image
        return image


def _from_preview(entry: CandidateRef) -> Item | None:
    """Return an item with the preview of its image; None if there is none, or a damaged one."""
    shown = None if entry.preview is None else entry.preview()
    if shown is None:
        return None
    try:
        image, _ = images.load(shown)
    except MediaError:
        return None
    sha256 = hashlib.sha256(shown).hexdigest()  # so that a cached score is never that of the original
    return Item(entry.id, image, entry.text, uri=entry.uri, sha256=sha256, preview=True)


def in_chunks(items: Iterable[T], most: int, pixels: int = ImageLoader.chunk_pixels) -> Iterator[list[T]]:
    """Yield lists of up to `most` items; images of so many `pixels` together close a list early."""
    chunk: list[T] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += _pixels(item)
        if len(chunk) >= most or held >= pixels:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _pixels(found: object) -> int:
    return pixels_of(found.image) if isinstance(found, Item) else 0


def _bytes(image: Image) -> int:
    return 3 * pixels_of(image)
