"""Adapt Qwen2-VL, 2.5, 3 and 3.5: one grid in the image's own shape, three position axes.

Qwen3-VL has DeepStack levels; Qwen3.5 gated delta-net layers instead of most of its attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from looktwice.score.local.families.base import Family, Prepared
from looktwice.types import Block, VisualTokens

if TYPE_CHECKING:
    from looktwice.score.local.rows import Batch


class QwenVL(Family):
    native_resolution = True

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.levels = len(getattr(model.config.vision_config, "deepstack_visual_indexes", ()))

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        grids = torch.cat([p.tensors["image_grid_thw"] for p in prepared])
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared])
        device = self.model.device
        seen = self.model.get_image_features(pixels.to(device), grids.to(device), return_dict=True)
        levels = self._levels(seen) if self.levels else None
        merge = int(self.model.config.vision_config.spatial_merge_size)
        shapes = [(h // merge, w // merge) for _, h, w in grids.tolist()]
        return [
            VisualTokens(features, levels[i] if levels else None, (Block("global", *shape),))
            for i, (features, shape) in enumerate(zip(seen.pooler_output, shapes, strict=True))
        ]

    def _levels(self, seen: Any) -> Sequence[Tensor]:
        """Return the DeepStack levels [L, T, d] of every image. Up to transformers 5.17 a level comes in one piece."""
        whole = [level if isinstance(level, Tensor) else torch.cat(list(level)) for level in seen.deepstack_features]
        return torch.split(torch.stack(whole), [len(features) for features in seen.pooler_output], dim=1)

    def extras(self, ids: Tensor, visual: Tensor, levels: Sequence[Tensor]) -> dict[str, Any]:
        if not self.levels or not levels:
            return {}
        return {"visual_pos_masks": visual, "deepstack_visual_embeds": list(torch.cat(list(levels), dim=1))}

    def position_ids(self, block: Block, start: int) -> tuple[Tensor, int]:
        down = (torch.arange(block.h) * block.stride)[:, None].expand(-1, block.w)
        across = (torch.arange(block.w) * block.stride).expand(block.h, -1)
        # the axes are time, height and width; one image is one moment
        grid = torch.stack([torch.zeros_like(down), down, across]).reshape(3, -1)
        return grid + start, start + max(block.rows_cols)


class Qwen35(QwenVL):
    layer_kinds = frozenset({"full_attention", "linear_attention"})

    def mask(self, distances: Tensor, visual: Tensor) -> Any:
        # a recurrence sees only what came before, so padding on the right needs no mask
        return {"full_attention": super().mask(distances, visual), "linear_attention": None}

    @contextmanager
    def ignoring_padding(self, batch: Batch) -> Iterator[None]:
        """Make padding neither fade nor write to a recurrent state: exp(g) = 1 and β = 0 there."""
        padding = torch.arange(batch.embeds.shape[1], device=batch.last.device) > batch.last[:, None]

        def silence(module: Any, args: Any, out: Tensor) -> Tensor:
            return out.masked_fill(padding[..., None], float("-inf"))  # g = −A·softplus(a), β = sigmoid(b)

        nets = [layer.linear_attn for layer in self.decoder.layers if hasattr(layer, "linear_attn")]
        hooks = [part.register_forward_hook(silence) for net in nets for part in (net.in_proj_a, net.in_proj_b)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
