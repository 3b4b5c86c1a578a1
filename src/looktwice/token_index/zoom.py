"""Zoom a query to its rare tokens: they show where its object is, and how large.

The tokens of the crop around them join those of the whole query, in grids of their own. A small object then has as many
tokens as a large one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from looktwice.token_index.crops import cut
from looktwice.types import Item

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.token_index.crops import Region

RARE = 0.35
"""A token is rare if its rarity above the median is more than this share of the largest (docs/lab/maxsim.md)."""
LEAST, LARGEST = 2, 0.85
"""Tokens and share of a side that a box has at least and at most: one token alone shows nothing in more detail, and a
box of almost all of the image is not worth a second pass."""


def rare_place(rarities: Tensor, grid: tuple[int, int]) -> Region | None:
    """Return the smallest box of the image's aspect around the rare tokens of one grid.

    Returns None if no token is rarer than the others, or the box would be too large.
    """
    above = (rarities - rarities.median()).clamp(min=0).reshape(grid)
    rare = above > RARE * above.max()
    if not rare.any():
        return None
    top, height = _extent(rare.any(1))
    left, width = _extent(rare.any(0))
    side = max(height, width, LEAST / min(grid))
    if side > LARGEST:
        return None
    return _centred(left, width, side), _centred(top, height, side), side


def zoomed(item: Item, place: Region) -> Item:
    """Return the crop of an image at a place."""
    assert item.image is not None
    return replace(item, image=cut(item.image, place), sha256=None, tokens=None)


def _extent(rare: Tensor) -> tuple[float, float]:
    """Return start and length of what is True along one side, in shares of it."""
    found = rare.nonzero()
    first, last = int(found[0]), int(found[-1])
    return first / len(rare), (last + 1 - first) / len(rare)


def _centred(start: float, length: float, side: float) -> float:
    """Return the start of a longer stretch of length `side` around this one, inside 0 to 1."""
    return min(max(0.0, start + (length - side) / 2), 1 - side)
