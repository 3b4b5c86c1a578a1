"""Give items their visual tokens: stored ones unchanged, others once through the vision tower, then from memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from looktwice.errors import LooktwiceError, ModelError, UsageError
from looktwice.score.local.families.base import Family, Prepared
from looktwice.score.local.lru import Lru
from looktwice.score.local.memory import TOWER_NUMBERS, halving
from looktwice.score.local.mllm import Mllm
from looktwice.types import Block, Item, VisualTokens

_Key: TypeAlias = tuple[str, int]
Found: TypeAlias = dict[_Key | None, VisualTokens | LooktwiceError]


class Tower:
    """The vision side of one model. `room`: bytes of visual tokens kept in memory, least recently used go first."""

    def __init__(self, mllm: Mllm, family: Family, room: int) -> None:
        self.mllm = mllm
        self.family = family
        self.images_seen = 0
        self._place = (mllm.model.device, mllm.model.dtype)  # read once: the model walks through all of its modules
        self._kept: Lru[VisualTokens] = Lru(1 << 30, room, nbytes)
        self._lock = threading.Lock()

    def visual_tokens(self, items: Sequence[Item], images: int) -> list[VisualTokens | LooktwiceError]:
        """Return the tokens of every item in order, on the model's device; an unusable item gives its error instead.

        `images`: how many images the prompt shows. Stored tokens made for another number give way to the item's
        image; raises UsageError if the image is missing too.
        """
        stored = [self._usable(item, images) for item in items]
        keys = [
            None if tokens is not None else self._key(item, images) for item, tokens in zip(items, stored, strict=True)
        ]
        with self._lock:
            found = self._find(keys, items, images)
        return [
            found[key] if tokens is None else self._stored(tokens) for key, tokens in zip(keys, stored, strict=True)
        ]

    def demand(self, items: Sequence[Item], images: int) -> list[VisualTokens]:
        """Return tokens of every item, in order; raise the error of the first that cannot be used."""
        found: list[VisualTokens] = []
        for tokens in self.visual_tokens(items, images):
            if isinstance(tokens, LooktwiceError):
                raise tokens
            found.append(tokens)
        return found

    def _usable(self, item: Item, images: int) -> VisualTokens | None:
        if item.tokens is None or self.family.accepts(item.tokens.layout, images):
            return item.tokens
        if item.image is not None:
            return None
        raise UsageError(
            f"The visual tokens stored for {item.id!r} do not suit a prompt of {self.mllm.name} with {images} "
            f"image{'s' * (images > 1)}; use --codec images, or a prompt made for this kind of query."
        )

    def _find(self, keys: Sequence[_Key | None], items: Sequence[Item], images: int) -> Found:
        waiting = {key: item for key, item in zip(keys, items, strict=True) if key is not None}
        found: Found = {}
        for key in list(waiting):
            if (kept := self._kept.get(key)) is not None:
                found[key] = kept
                del waiting[key]
        return found | self._see(waiting, images)

    def _key(self, item: Item, images: int) -> _Key:
        if item.image is None:
            raise ModelError(f"Item {item.id!r} has neither an image nor visual tokens; give it one.")
        digest = item.sha256
        if digest is None:
            digest = hashlib.sha256(repr(item.image.size).encode() + item.image.tobytes()).hexdigest()
        return digest, images if self.family.depends_on_images else 0

    def _stored(self, tokens: VisualTokens) -> VisualTokens | LooktwiceError:
        count = sum(p.h * p.w for p in tokens.layout if isinstance(p, Block))
        shapes = (tuple(tokens.features.shape), tuple(tokens.levels.shape) if tokens.levels is not None else None)
        deep = (self.family.levels, count, self.family.width) if self.family.levels else None
        if shapes != ((count, self.family.width), deep):
            return ModelError(
                f"Stored visual tokens of shapes {shapes} do not fit their layout and this model, which need "
                f"{((count, self.family.width), deep)}; run looktwice add-tokens again."
            )
        return self._on(tokens)

    def _see(self, waiting: dict[_Key, Item], images: int) -> Found:
        found: Found = {}
        for batch in self._batches(self._prepared(waiting, images, found)):
            for done in halving(lambda part: self.family.encode_images([p for _, p in part]), batch):
                for (key, _), tokens in zip(*done, strict=True):
                    found[key] = self._keep(key, self._on(tokens))
        return found

    def _prepared(self, waiting: dict[_Key, Item], images: int, refused: Found) -> Iterator[tuple[_Key, Prepared]]:
        """Yield images one by one, because a photo's pixels take hundreds of megabytes; errors go to `refused`."""
        for key, item in waiting.items():
            assert item.image is not None
            try:
                yield key, self.family.prepare(self.mllm.scale(item.image), images)
            except (ValueError, MemoryError) as error:  # how processors refuse an image, such as one far too long
                why = str(error).rstrip(".") or "not enough memory"
                refused[key] = ModelError(
                    f"{self.mllm.name} cannot prepare the image {item.id!r} ({why}); leave it out."
                )

    def _batches(self, ready: Iterable[tuple[_Key, Prepared]]) -> Iterator[list[tuple[_Key, Prepared]]]:
        limit = TOWER_NUMBERS[self._place[0].type == "cpu"]
        batch: list[tuple[_Key, Prepared]] = []
        size = 0
        for key, image in ready:
            if batch and size + image.size > limit:
                yield batch
                batch, size = [], 0
            batch.append((key, image))
            size += image.size
        if batch:
            yield batch

    def _keep(self, key: _Key, tokens: VisualTokens) -> VisualTokens:
        self.images_seen += 1
        tokens = replace(tokens, features=tokens.features.clone())  # a slice would keep its whole batch in memory
        return self._kept.put(key, tokens)

    def _on(self, tokens: VisualTokens) -> VisualTokens:
        levels = tokens.levels.to(*self._place) if tokens.levels is not None else None
        return replace(tokens, features=tokens.features.to(*self._place), levels=levels)


def nbytes(tokens: VisualTokens) -> int:
    """Return the bytes of an image's visual tokens."""
    return tokens.features.nbytes + (tokens.levels.nbytes if tokens.levels is not None else 0)
