"""Make the patch tokens of items with any encoder that has them, as an MLLM's visual tokens are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from looktwice.encode.base import BaseEncoder
from looktwice.encode.name import parse
from looktwice.encode.patches import PATCHES, Patches
from looktwice.errors import MediaError
from looktwice.models.device import halving
from looktwice.types import Block, Item, TokensInfo, VisualTokens

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class PatchTower:
    """A maker of an encoder's patch tokens, in the form in which an MLLM's visual tokens are stored."""

    def __init__(self, encoder: BaseEncoder) -> None:
        self.encoder = encoder

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return the tokens of each image. Raises UsageError for an encoder that has none, MediaError without image."""
        import torch

        images = [_image(item) for item in items]
        found: dict[int, Patches] = {}
        with torch.inference_mode():
            for rows in self.encoder.batches(images):
                found |= zip(rows, self._patches([images[row] for row in rows]), strict=True)
        made = [found[row] for row in range(len(items))]
        return [VisualTokens(one.rows.float(), None, (Block("global", *one.grid),)) for one in made]

    def tokens_info(self) -> TokensInfo:
        """Return the facts about these tokens that a table must store."""
        info = self.encoder.info
        name = str(replace(parse(info.name), query_size=None, linear=None, mix=None, dim=None))
        return TokensInfo(PATCHES + name, info.revision, info.preprocessing.partition(";")[0], self._width, 0)

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        """Return the encoder's device, and its dtype."""
        return self.encoder.placement.device, self.encoder.placement.torch_dtype

    @cached_property
    def _width(self) -> int:
        from PIL import Image

        return int(self.visual_tokens([Item("", image=Image.new("RGB", (64, 64)))])[0].features.shape[1])

    def _patches(self, images: list[Image]) -> list[Patches]:
        alone = f"{self.encoder.placement.device} has too little memory for one image; choose a smaller size."
        parts = halving(lambda part: self.encoder.patches(list(part)), images, alone)
        return [one for _, found in parts for one in found]


def _image(item: Item) -> Image:
    if item.image is None:
        raise MediaError("no-image", f"{item.id!r} has no image to make tokens of")
    return item.image
