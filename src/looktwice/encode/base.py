"""Sort items, batch them, scale rows to unit length, and mix image and text, for every encoder.

A subclass turns one batch of images, or of texts, into vectors; it never sees items.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from looktwice.encode.linear import Linear
from looktwice.encode.mixing import Mixing, unit
from looktwice.encode.patches import Patches, no_patches
from looktwice.errors import UsageError
from looktwice.models.catalog import text_encoders
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement, halving
from looktwice.models.weights import load_weights
from looktwice.sources.records import text_is_clean
from looktwice.types import EncoderInfo, Item, has_words, shortened

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel

    from looktwice.types import FloatArray

log = logging.getLogger(__name__)
T = TypeVar("T")


class BaseEncoder(ABC):
    """An encoder over one checkpoint; the weights are read at the first batch.

    An item with an image and a text becomes a weighted sum of both, see `mixing`. `truncated` counts texts that were
    longer than the model's window. `unread` counts texts beside an image that the model cannot read. Each is logged
    once. `for_queries` encodes queries: itself, unless the name gives queries a size or weights of their own.
    """

    auto = "AutoModel"
    reads_text = False
    own_queries = False  # whether queries have a prompt of their own

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        name: str,
        preprocessing: str,
        dim: int,
        linear: Linear | None,
        batch_size: int,
        mixing: Mixing,
    ) -> None:
        self.checkpoint = checkpoint
        self.placement = placement
        self.linear = linear
        self.batch_size = batch_size
        self.mixing = mixing
        self._width = dim
        self.truncated = 0
        self.unread = 0
        self._dim = linear.dim if linear else dim
        self.info = EncoderInfo(
            name, checkpoint.revision, preprocessing, self._dim + mixing.short, dtype=placement.dtype
        )
        self.for_queries: BaseEncoder | QueryEncoder = self

    @cached_property
    def model(self) -> PreTrainedModel:
        """Return the weights, read at first use."""
        return load_weights(self.checkpoint, self.placement, self.auto)

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n, d) float32 rows of unit length in the order of `items`; n = 0 gives (0, d).

        A row without a direction is NaN: the model gave zero or NaN, or the item has neither image nor text. Raises
        UsageError for a text-only item if the model reads no text, and for text that is not UTF-8.
        """
        return self._mixed(items, self.mixing.items, asked=False)

    def encode_queries(self, items: Sequence[Item]) -> FloatArray:
        """Encode with the weights of queries; see `encode`."""
        return self._mixed(items, self.mixing.queries, asked=True)

    def _mixed(self, items: Sequence[Item], share: float, asked: bool) -> FloatArray:
        import numpy as np

        raw = asked and self.mixing.raw
        images = [i for i, item in enumerate(items) if item.image is not None]
        texts = [i for i, item in enumerate(items) if has_words(item.text) and self._can_read(item)]
        seen = self._adapted(self._run([_image(items[i]) for i in images], self._key, self._images), raw)
        read = self._adapted(self._run([_text(items[i]) for i in texts], lambda _: None, self._texts), raw)
        both = set(images) & set(texts)
        mixed = np.zeros((len(items), self._dim), np.float32)
        for rows, vectors, weight in ((images, seen, 1 - share), (texts, read, share)):
            for row, vector in zip(rows, vectors, strict=True):
                mixed[row] += vector * (weight if row in both else 1)
        return self.mixing.finish(mixed, asked)

    def _can_read(self, item: Item) -> bool:
        if self.reads_text:
            return True
        if item.image is None:
            raise UsageError(
                f"The encoder {self.info.name} reads no text, but {item.id!r} has only text; use an encoder that reads "
                f"text, such as {', '.join(text_encoders()[:4])} (all: looktwice models)."
            )
        self.unread += 1
        if self.unread == 1:
            log.warning("The encoder %s reads no text; items with image and text use only the image.", self.info.name)
        return False

    def _adapted(self, rows: FloatArray, raw: bool) -> FloatArray:
        if self.linear is None:
            return rows if raw else unit(rows)
        adapted = self.linear.apply(unit(rows))
        return adapted if raw else unit(adapted)

    def _run(self, inputs: list[T], key: Callable[[T], Hashable], forward: Callable[[list[T]], Tensor]) -> FloatArray:
        import numpy as np
        import torch

        rows = np.empty((len(inputs), self._width), np.float32)
        with torch.inference_mode():
            for chosen in self._batches([key(value) for value in inputs]):
                rows[chosen] = self._forward([inputs[i] for i in chosen], forward)
        return rows

    def batches(self, images: Sequence[Image]) -> Iterator[list[int]]:
        """Yield the places of images that go into one batch."""
        return self._batches([self._key(image) for image in images])

    def patches(self, images: list[Image]) -> list[Patches]:
        """Return the patch tokens of images with equal keys. Raises UsageError if the encoder has none."""
        raise no_patches(self.info.name)

    def _batches(self, keys: list[Hashable]) -> Iterator[list[int]]:
        groups = defaultdict(list)
        for index, key in enumerate(keys):
            groups[key].append(index)
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _forward(self, batch: list[T], forward: Callable[[list[T]], Tensor]) -> FloatArray:
        import numpy as np

        alone = (
            f"{self.placement.device} has too little memory for one item with {self.info.name}; choose a smaller size "
            "or --device cpu."
        )
        parts = list(halving(lambda part: forward(list(part)).float().cpu().numpy(), batch, alone))
        if len(parts) > 1:
            self.batch_size = max(len(part) for part, _ in parts)
        return np.concatenate([vectors for _, vectors in parts])

    def to_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move model inputs to the model's device; floating-point inputs also take its dtype."""
        dtype = self.placement.torch_dtype
        return {
            name: value.to(self.placement.device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }

    @abstractmethod
    def _key(self, image: Image) -> Hashable:
        """Return the batch key of an image: images with equal keys go into one batch."""

    @abstractmethod
    def _images(self, images: list[Image]) -> Tensor:
        """Return vectors [n, d] of images with equal keys; they need not have unit length."""

    def _texts(self, texts: list[str]) -> Tensor:
        """Return vectors [n, d] of texts; they need not have unit length."""
        raise NotImplementedError


class QueryEncoder:
    """An encoder that encodes every item as a query."""

    def __init__(self, encoder: BaseEncoder) -> None:
        self.encoder = encoder
        self.info = encoder.info

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Encode queries; see `BaseEncoder.encode_queries`."""
        return self.encoder.encode_queries(items)


def _text(item: Item) -> str:
    if not text_is_clean(text := item.text or ""):
        raise UsageError(f"The text of {item.id!r:.60} is not UTF-8 (it contains a lone surrogate); write it again.")
    return shortened(text)


def _image(item: Item) -> Image:
    assert item.image is not None
    return item.image
