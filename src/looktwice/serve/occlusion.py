"""Find out what of a candidate mattered: how much p falls when the visual tokens of a region become the mean token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from looktwice.types import Block, FloatArray, Item, Layout, VisualTokens

AT_ONCE = 16
"""Variants of a candidate that are held at once: each holds all of its tokens."""

LEAST_FALL = 0.01
"""Smallest fall of p that a box is drawn around."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class OcclusionMap:
    """The fall of p for each cell of a grid over the upright image, and a box around what mattered (shares of 1)."""

    values: list[list[float]]
    box: Box | None

    def record(self) -> dict[str, Any]:
        """Return the map as plain data."""
        return {"rows": len(self.values), "cols": len(self.values[0]), "values": self.values, "box": self.box}


def occlusion_map(
    p_of: Callable[[Sequence[Item]], FloatArray], candidate: Item, size: tuple[int, int], p: float, cells: int
) -> OcclusionMap:
    """Return the map of a candidate with `tokens`, of about `cells` cells; `size` is the image's width and height.

    `p_of` scores variants of the candidate; `p` is its own score. A variant without a score counts as no change.
    """
    tokens = candidate.tokens
    assert tokens is not None
    boxes = token_boxes(tokens.layout, size)
    rows, cols = grid_of(boxes, size, cells)
    regions = [_within(boxes, row, col, rows, cols) for row in range(rows) for col in range(cols)]
    falls: list[float] = []
    for start in range(0, len(regions), AT_ONCE):
        variants = [_without(candidate, tokens, region) for region in regions[start : start + AT_ONCE]]
        falls += [p - float(q) if math.isfinite(q) else 0.0 for q in p_of(variants)]
    values = [falls[row * cols : (row + 1) * cols] for row in range(rows)]
    return OcclusionMap(values, box_around(values))


def token_boxes(layout: Layout, size: tuple[int, int]) -> list[Box]:
    """Return the region of the image that each token covers, as left, top, right, bottom in shares of 1.

    Tiles lie in the rows and columns that come nearest to the image's own shape.

    >>> token_boxes((Block("global", 1, 2),), (200, 100))
    [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    """
    blocks = [part for part in layout if isinstance(part, Block)]
    tiles = sum(block.kind == "tile" for block in blocks)
    rows, cols = _arranged(tiles, size)
    found: list[Box] = []
    tile = 0
    for block in blocks:
        frame: Box = (0.0, 0.0, 1.0, 1.0)
        if block.kind == "tile":
            row, col = divmod(tile, cols)
            frame = (col / cols, row / rows, (col + 1) / cols, (row + 1) / rows)
            tile += 1
        found += _cells(frame, block.h, block.w)
    return found


def grid_of(boxes: Sequence[Box], size: tuple[int, int], cells: int) -> tuple[int, int]:
    """Return rows and columns of a grid as fine as the finest tokens, but of at most about `cells` cells."""
    cols = round(1 / min(right - left for left, _, right, _ in boxes))
    rows = round(1 / min(bottom - top for _, top, _, bottom in boxes))
    if rows * cols <= cells:
        return max(1, rows), max(1, cols)
    shape = size[0] / size[1]
    across = min(cols, max(1, round(math.sqrt(cells * shape))))
    return min(rows, max(1, cells // across)), across


def box_around(values: Sequence[Sequence[float]]) -> Box | None:
    """Return the box around all cells of at least half the greatest fall; None if nothing mattered."""
    most = max(max(row) for row in values)
    if most < LEAST_FALL:
        return None
    rows, cols = len(values), len(values[0])
    strong = [(r, c) for r in range(rows) for c in range(cols) if values[r][c] >= most / 2]
    top, left = min(r for r, _ in strong), min(c for _, c in strong)
    bottom, right = max(r for r, _ in strong) + 1, max(c for _, c in strong) + 1
    return left / cols, top / rows, right / cols, bottom / rows


def _arranged(tiles: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns whose product is `tiles` and whose shape is nearest to the image's."""
    shape = math.log(size[0] / size[1])
    pairs = [(n, tiles // n) for n in range(1, tiles + 1) if tiles % n == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[1] / pair[0]) - shape), default=(1, 1))


def _cells(frame: Box, h: int, w: int) -> Iterator[Box]:
    left, top, right, bottom = frame
    wide, high = (right - left) / w, (bottom - top) / h
    for row in range(h):
        for col in range(w):
            yield left + col * wide, top + row * high, left + (col + 1) * wide, top + (row + 1) * high


def _within(boxes: Sequence[Box], row: int, col: int, rows: int, cols: int) -> list[int]:
    """Return the tokens of a cell: those that share half of the smaller one's area with it."""
    left, top, right, bottom = col / cols, row / rows, (col + 1) / cols, (row + 1) / rows
    area = (right - left) * (bottom - top)
    found = []
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        shared = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
        if shared >= 0.5 * min(area, (x1 - x0) * (y1 - y0)) - 1e-9:
            found.append(number)
    return found


def _without(candidate: Item, tokens: VisualTokens, region: Sequence[int]) -> Item:
    """Return the candidate with the tokens of a region replaced by the mean of all."""
    features, levels = tokens.features.clone(), tokens.levels
    features[list(region)] = tokens.features.mean(0)
    if levels is not None:
        levels = levels.clone()
        levels[:, list(region)] = levels.mean(1, keepdim=True)
    return replace(candidate, image=None, tokens=VisualTokens(features, levels, tokens.layout))
