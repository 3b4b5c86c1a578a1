"""Qwen2-VL, 2.5 and 3: one grid in the picture's own shape, three position axes, DeepStack levels in Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from looktwice.score.local.families.base import Family, Prepared
from looktwice.types import Block, VisualTokens


class QwenVL(Family):
    native_resolution = True

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.levels = len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))

    def look(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        grids = torch.cat([p.tensors["image_grid_thw"] for p in prepared])
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared])
        device = self.model.device
        seen = self.model.get_image_features(pixels.to(device), grids.to(device), return_dict=True)
        levels = [torch.stack(of) for of in zip(*seen.deepstack_features, strict=True)] if self.levels else None
        merge = int(self.model.config.vision_config.spatial_merge_size)
        shapes = [(h // merge, w // merge) for _, h, w in grids.tolist()]
        return [
            VisualTokens(features, levels[i] if levels else None, (Block("global", *shape),))
            for i, (features, shape) in enumerate(zip(seen.pooler_output, shapes, strict=True))
        ]

    def extras(self, visual: Tensor, levels: Sequence[Tensor]) -> dict[str, Any]:
        if not self.levels or not levels:
            return {}
        return {"visual_pos_masks": visual, "deepstack_visual_embeds": list(torch.cat(list(levels), dim=1))}

    def place(self, block: Block, start: int) -> tuple[Tensor, int]:
        down = (torch.arange(block.h) * block.stride)[:, None].expand(-1, block.w)
        across = (torch.arange(block.w) * block.stride).expand(block.h, -1)
        grid = torch.stack([torch.zeros_like(down), down, across]).reshape(3, -1)
        return grid + start, start + max(block.rows_cols)
