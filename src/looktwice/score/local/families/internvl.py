"""Adapt InternVL (the transformers-native checkpoints): square tiles in one run, then a thumbnail after several."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch

from looktwice.score.local.families.base import Family, Prepared, split
from looktwice.types import VisualTokens


class InternVL(Family):
    @classmethod
    def limit_tiles(cls, processor: Any, most: int) -> None:
        # the processor picks a grid between these two, so the lower limit must not exceed the new upper one
        processor.image_processor.max_patches = most
        processor.image_processor.min_patches = min(most, processor.image_processor.min_patches)

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        side = isqrt(int(self.processor.image_seq_length))
        layouts = [self.lay_out(p.ids, (side, side)) for p in prepared]
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared])
        seen = self.model.get_image_features(pixel_values=pixels.to(self.model.device), return_dict=True)
        return split(seen.pooler_output.flatten(0, 1), layouts)
