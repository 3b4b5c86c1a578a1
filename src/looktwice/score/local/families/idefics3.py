"""Adapt Idefics3 and SmolVLM: square tiles with row and column markers, then the whole view."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch

from looktwice.score.local.families.base import Family, Prepared, split
from looktwice.types import VisualTokens


class Idefics3(Family):
    decoder_name = "text_model"

    @classmethod
    def limit_tiles(cls, processor: Any, most: int) -> None:
        side = processor.image_processor.max_image_size["longest_edge"]
        processor.image_processor.do_image_splitting = most > 1
        processor.image_processor.size = {"longest_edge": side * isqrt(most)}

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        side = isqrt(int(self.processor.image_seq_len))
        layouts = [self.lay_out(p.ids, (side, side)) for p in prepared]
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared], dim=1)
        # dimension 1 counts the tiles of an image: all tiles go through the tower as those of one image
        mask = torch.cat([p.tensors["pixel_attention_mask"] for p in prepared], dim=1)
        device = self.model.device
        seen = self.model.get_image_features(pixels.to(device), mask.to(device), return_dict=True)
        return split(torch.cat(list(seen.pooler_output)), layouts)
