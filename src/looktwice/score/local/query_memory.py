"""Keep what was computed for the last few queries, so that threads may take turns with several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from transformers.cache_utils import Cache

from looktwice.score.local import prefix_cache, vision_tower
from looktwice.score.local.lru import Lru
from looktwice.types import Item, VisualTokens

QUERIES = 8
Prefix: TypeAlias = tuple[Cache, Sequence[VisualTokens]]


class QueryMemory:
    """Keeps visual tokens and prompt prefixes of up to QUERIES queries: `room` bytes of each, the last one always."""

    def __init__(self, room: int) -> None:
        self._seen: Lru[tuple[VisualTokens, VisualTokens]] = Lru(
            QUERIES, room, lambda kept: vision_tower.nbytes(kept[1]), least=1
        )
        self._prefixes: Lru[Prefix] = Lru(QUERIES, room, lambda kept: prefix_cache.nbytes(kept[0]), least=1)

    def tokens(self, query: Item, images: int, encode: Callable[[], VisualTokens]) -> VisualTokens:
        """Return what `encode_images` gives for a query in a prompt that shows `images` images.

        Stored tokens give the same object again, which `prefix` identifies them by.
        """
        if query.tokens is None:
            return encode()
        stored = query.tokens  # kept with the result, so that Python cannot reuse its id
        return self._seen.obtain((id(stored), images), lambda: (stored, encode()))[1]

    def prefix(self, ids: Sequence[int], shown: Sequence[VisualTokens], run: Callable[[], Cache]) -> Cache:
        """Return the result of `run` for a prefix of these token ids that shows these images."""
        key = (tuple(ids), *(id(tokens.features) for tokens in shown))
        return self._prefixes.obtain(key, lambda: (run(), shown))[0]
