"""Adapt LLaVA-OneVision: a square view and a newline per image if a prompt shows several images.

A single image gives the square view, then tiles put together in the image's own shape, with a newline after every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from looktwice.errors import ModelError
from looktwice.score.local.families.base import Family, Prepared
from looktwice.types import Block, Layout, Newline, VisualTokens

if TYPE_CHECKING:
    from PIL.Image import Image


class LlavaOnevision(Family):
    depends_on_images = True

    def prepare(self, image: Image, images_shown: int) -> Prepared:
        # the processor treats an image by how many stand beside it, so it gets as many as the prompt will show
        made = self.processor(
            text=[self.processor.image_token * images_shown],
            images=[[image] * images_shown],
            add_special_tokens=False,
            return_tensors="pt",
        )
        ids = made["input_ids"][0].tolist()
        tensors = {name: made[name][:1] for name in ("pixel_values", "image_sizes")}
        return Prepared(tensors, tuple(ids[: len(ids) // images_shown]), images_shown)

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        if any(p.images_shown == 1 for p in prepared):
            return [self._split(self._pack([p])[0]) for p in prepared]
        return [self._split(packed) for packed in self._pack(prepared)]

    def accepts(self, layout: Layout, images_shown: int) -> bool:
        return (images_shown == 1) == any(isinstance(part, Block) and part.kind == "tile" for part in layout)

    def newline(self) -> Tensor:
        vector: Tensor = self.model.model.image_newline
        return vector

    def _pack(self, prepared: Sequence[Prepared]) -> Sequence[Tensor]:
        device = self.model.device
        seen = self.model.get_image_features(
            torch.cat([p.tensors["pixel_values"] for p in prepared]).to(device, self.model.dtype),
            torch.cat([p.tensors["image_sizes"] for p in prepared]).to(device),
            # one image is cut into tiles, several are not; a number beyond the images given is harmless
            batch_num_images=torch.tensor([1 if prepared[0].images_shown == 1 else max(2, len(prepared))]),
            return_dict=True,
        )
        packed: Sequence[Tensor] = seen.pooler_output
        return packed

    def _split(self, packed: Tensor) -> VisualTokens:
        """Take the newlines out of the model's own packing; their places give the shape of the image."""
        # the model inserts one learned vector at every row's end, so an exact match finds them
        is_newline = (packed == self.newline().to(packed)).all(-1)
        vision = self.model.config.vision_config
        side = int(vision.image_size) // int(vision.patch_size)
        base, rows = side * side, int(is_newline.sum())
        layout: Layout
        if rows == 1 and len(packed) == base + 1:
            layout = (Block("global", side, side), Newline())
        else:
            columns = (len(packed) - base) // max(rows, 1) - 1
            layout = (Block("global", side, side), Block("tile", rows, columns, newlines=True))
            if base + rows * (columns + 1) != len(packed) or not bool(is_newline[base + columns :: columns + 1].all()):
                raise ModelError("An image's rows do not end at this model's newlines; use the reference path.")
        return VisualTokens(packed[~is_newline], None, layout)
