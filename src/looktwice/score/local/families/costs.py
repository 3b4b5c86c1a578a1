"""Give each family's cost as plain data: what its config.json leaves out, and how an image becomes tokens.

Loads no torch, so that `looktwice estimate` needs none. A family of the fast path has one entry here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from looktwice.models.decoders import Config
from looktwice.types import Block, Layout, Newline, TextIds

_Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FamilyCost:
    """What cost depends on in one family. A stated value of config.json replaces its default.

    `text_type` names the language model; `vision` holds the tower's defaults. `merge` returns the patches per side of a
    token from the whole configuration and the tower's. `tiled` returns the layout of an image of (width, height) from
    the tokens per side of a tile, its pixels and the budget of tiles (None: the model's own). It is None if images keep
    their own shape; `budget` then returns the tokens that every image is scaled to, or None.
    """

    text_type: str
    vision: Mapping[str, Any]
    merge: Callable[[Config, Config], int]
    tiled: Callable[[_Size, int, int, int | None], Layout] | None = None
    budget: Callable[[Config], int | None] = field(default=lambda config: None)
    depth: str = "num_hidden_layers"
    gated_tower: bool = False


def _view(size: _Size, side: int, tile: int, max_tiles: int | None) -> Layout:
    return (Block("global", side, side),)


def _view_and_newline(size: _Size, side: int, tile: int, max_tiles: int | None) -> Layout:
    return (Block("global", side, side), Newline())


def _canvas_of_tiles(size: _Size, side: int, tile: int, max_tiles: int | None) -> Layout:
    """Return InternVL's layout: a canvas of up to 12 tiles, then the whole image."""
    count = math.prod(_canvas(size, tile, 12 if max_tiles is None else max_tiles))
    tiles = [Block("tile", side, side)] * (count if count > 1 else 0)
    return (TextIds((0,)), *tiles, Block("global", side, side), TextIds((0,)))


def _rows_of_tiles(size: _Size, side: int, tile: int, max_tiles: int | None) -> Layout:
    """Return Idefics3's layout: rows of tiles along the longer side, 4 × 4 at most, then the whole image."""
    view, edge = Block("global", side, side), math.isqrt(16 if max_tiles is None else max_tiles)
    if edge < 2:
        return (TextIds((0, 0)), view, TextIds((0,)))
    columns, rows = (max(1, math.ceil(edge * one / max(size))) for one in size)
    line = (TextIds((0, 0)), Block("tile", side, side)) * columns
    return (*(*line, TextIds((0,))) * rows, TextIds((0, 0, 0)), view, TextIds((0,)))


def _canvas(size: _Size, tile: int, most: int) -> _Size:
    """Return InternVL's columns × rows: the nearest aspect ratio; of equals the largest that is not twice too large."""
    grids = sorted(
        ((c, r) for c in range(1, most + 1) for r in range(1, most + 1) if c * r <= most), key=lambda g: g[0] * g[1]
    )
    best, least = (1, 1), math.inf
    for columns, rows in grids:
        off = abs(size[0] / size[1] - columns / rows)
        if off < least or (off == least and math.prod(size) > 0.5 * tile**2 * columns * rows):
            best, least = (columns, rows), off
    return best


def _spatial_merge(config: Config, vision: Config) -> int:
    return int(vision["spatial_merge_size"])


def _gemma3_merge(config: Config, vision: Config) -> int:
    side = math.isqrt(int(config.get("mm_tokens_per_image") or 256))
    return int(vision["image_size"]) // int(vision["patch_size"]) // side


_IDEFICS3 = FamilyCost(
    text_type="llama",
    vision={
        "num_hidden_layers": 12, "hidden_size": 1152, "intermediate_size": 3072, "patch_size": 32, "image_size": 224,
    },
    merge=lambda config, vision: int(config.get("scale_factor", 2)),
    tiled=_rows_of_tiles,
)  # fmt: skip
_QWEN35 = FamilyCost(
    text_type="qwen3_5_text",
    vision={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16, "spatial_merge_size": 2},
    merge=_spatial_merge,
    depth="depth",
)
_QWEN3 = replace(_QWEN35, text_type="qwen3_vl_text", vision={**_QWEN35.vision, "deepstack_visual_indexes": [8, 16, 24]})

COSTS: Mapping[str, FamilyCost] = {
    "qwen2_5_vl": FamilyCost(
        text_type="qwen2_5_vl_text",
        vision={
            "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "patch_size": 14, "spatial_merge_size": 2,
            "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        merge=_spatial_merge,
        depth="depth",
        gated_tower=True,
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": replace(_QWEN3, text_type="qwen3_vl_moe_text"),
    "qwen3_5": _QWEN35,
    "qwen3_5_moe": replace(_QWEN35, text_type="qwen3_5_moe_text"),
    "gemma3": FamilyCost(
        text_type="gemma3_text",
        vision={
            "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "patch_size": 16, "image_size": 224,
        },
        merge=_gemma3_merge,
        tiled=_view,
    ),
    "gemma4": FamilyCost(
        text_type="gemma4_text",
        vision={
            "num_hidden_layers": 16, "hidden_size": 768, "intermediate_size": 3072, "patch_size": 16,
            "pooling_kernel_size": 3,
        },
        merge=lambda config, vision: int(vision["pooling_kernel_size"]),
        budget=lambda config: int(config.get("vision_soft_tokens_per_image") or 280),
        gated_tower=True,
    ),
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    "internvl": FamilyCost(
        text_type="qwen2",
        vision={
            "num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "patch_size": [14, 14],
            "image_size": [448, 448],
        },
        merge=lambda config, vision: round(1 / config.get("downsample_ratio", 0.5)),
        tiled=_canvas_of_tiles,
    ),
    "llava_onevision": FamilyCost(
        text_type="qwen2",
        vision={
            "num_hidden_layers": 26, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14,
            "image_size": 384,
        },
        merge=lambda config, vision: 1,
        tiled=_view_and_newline,
    ),
}  # fmt: skip
"""By the `model_type` of the configuration."""
