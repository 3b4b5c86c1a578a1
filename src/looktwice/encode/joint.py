"""Encode an item's image and text together, as one input, without mixing afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from looktwice.encode.base import BaseEncoder, _text
from looktwice.encode.pixels import presentable
from looktwice.types import Item, has_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from looktwice.types import FloatArray

Shown = tuple["Image | None", str | None]  # an item's image, its text, or both


class JointEncoder(BaseEncoder):
    """The base of encoders that read image and text as one input; queries may get an instruction of their own."""

    reads_text = True

    @abstractmethod
    def _together(self, shown: list[Shown], asked: bool) -> Tensor:
        """Return vectors [n, d] of items, or of queries (`asked`)."""

    def _mixed(self, items: Sequence[Item], share: float, asked: bool) -> FloatArray:
        import numpy as np

        rows = np.full((len(items), self._dim), np.nan, np.float32)
        filled = [i for i, item in enumerate(items) if item.image is not None or has_words(item.text)]
        shown = [_shown(items[i]) for i in filled]
        rows[filled] = self._adapted(self._run(shown, _parts, lambda batch: self._together(batch, asked)), raw=False)
        return rows

    def _key(self, image: Image) -> Hashable:
        return None

    def _images(self, images: list[Image]) -> Tensor:
        return self._together([(image, None) for image in images], asked=False)


def _shown(item: Item) -> Shown:
    image = None if item.image is None else presentable(item.image)
    return image, _text(item) if has_words(item.text) else None


def _parts(shown: Shown) -> Hashable:
    return shown[0] is None, shown[1] is None
