"""Candidates of a shortlist, read for the second look: pictures decoded beside the model's work, a few at a time.

Knows where pictures lie (`CandidateRef`), no model and no table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
CHUNK_PIXELS = 2**28  # or fewer, that hold so many pixels (800 MB): a decoded photo takes up to 100 MB
CACHE_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class CandidateRef:
    """What must be known of a candidate to show it: where its picture lies (None: it has none), and its text.

    `urls` says whether the picture may be fetched where that is a URL.
    """

    id: str
    uri: str | None
    sha256: str | None = None
    text: str | None = None
    urls: Urls = "refused"


@dataclass(frozen=True, slots=True)
class LoadError:
    """What stands in the place of a candidate that could not be read."""

    id: str
    why: MediaError


T = TypeVar("T")
Loaded: TypeAlias = Item | LoadError
Resolver: TypeAlias = Callable[[Sequence[str]], "list[CandidateRef | LoadError]"]


class ImageLoader:
    """Turns entries into items. The last `cache_bytes` of decoded pictures are kept, for the next query's shortlist."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: LRUCache[tuple[str, str | None], Image] = LRUCache(cache_bytes, getsizeof=_bytes)
        self._lock = Lock()

    def query(self, item: Item) -> Item:
        """The query as it is to be shown beside what this reader reads: here, as it is."""
        return item

    @property
    def tokens_key(self) -> str:
        """The token set that candidates come from; "" where they are images."""
        return ""

    def settings(self) -> Mapping[str, Any]:
        """Return what a run's manifest says of this loader."""
        return {"codec": "pictures"}

    def load(self, entries: Sequence[Item | CandidateRef | LoadError]) -> Iterator[list[Loaded]]:
        """Yield the items of `entries` in order, in lists of CHUNK or fewer large ones; the next are read meanwhile.

        What has no file to read passes through. A picture that cannot be read, or that is not the one that was indexed,
        makes an LoadError.
        """
        yield from in_chunks(prefetch(entries, self._item, _pixels, min(8, os.cpu_count() or 1)), _pixels, CHUNK)

    def _item(self, entry: Item | CandidateRef | LoadError) -> Loaded:
        if not isinstance(entry, CandidateRef):
            return entry
        try:
            image = None if entry.uri is None else self._picture(entry.uri, entry.sha256, entry.urls)
        except MediaError as error:
            return LoadError(entry.id, error)
        return Item(entry.id, image, entry.text, uri=entry.uri, sha256=entry.sha256)

    def _picture(self, uri: str, sha256: str | None, urls: Urls) -> Image:
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


def in_chunks(items: Iterable[T], pixels: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Lists of up to `most` items, closed before that where they hold CHUNK_PIXELS; `pixels` says how many one has."""
    chunk: list[T] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += pixels(item)
        if len(chunk) >= most or held >= CHUNK_PIXELS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _pixels(found: Loaded) -> int:
    return pixels_of(found.image) if isinstance(found, Item) else 0


def _bytes(image: Image) -> int:
    return 3 * pixels_of(image)
