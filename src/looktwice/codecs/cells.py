"""Divide token grids into square cells, as pooling and sampling both need.

A cell is `size` × `size` neighbours of one block; each block (the global view, each tile) is divided on its own. One
token stands for each cell. The replacement rule says what happens to the others (2604.13268, reference code
`models/compression.py`):

skip       only the one token per cell is shown to the model, at the position of the cell's top-left token;
zero       it stays at the top-left, and zero vectors replace the cell's other tokens; the token count does not change;
replicate  every token of the cell becomes it; the token count does not change.

If `size` does not divide a grid's sides, the cells at the bottom and right edge are simply smaller, so that no part of
an image is lost. `:released` keeps the published code's behaviour: `skip` drops the odd rows and columns, `replicate`
leaves their tokens unchanged, `zero` is refused (there it ends in a shape error).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from looktwice.codecs.layout import blocks
from looktwice.errors import MediaError, UsageError
from looktwice.types import Block, Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Replacement = Literal["skip", "zero", "replicate"]
REPLACEMENTS: tuple[Replacement, ...] = ("skip", "zero", "replicate")


@dataclass(frozen=True, slots=True)
class Cells:
    """Divide every block into cells and keep one token per cell."""

    size: int = 2
    replacement: Replacement = "skip"
    released: bool = False

    word: ClassVar[str]
    representative: ClassVar[Literal["mean", "first"]]

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 16:
            raise UsageError(f"{self.word}{self.size}: the side of a cell must be from 2 to 16; choose another.")

    def __str__(self) -> str:
        rule = "" if self.replacement == "skip" else f":{self.replacement}"
        return f"{self.word}{self.size}{rule}{':released' if self.released else ''}"

    def divide(self, layout: Layout) -> Division:
        """Return the cell of each token. Raises MediaError for a grid that the released rule cannot divide."""
        return _divide(self, layout)

    def shown(self, layout: Layout) -> Layout:
        """Return the layout that the model sees: with `skip` the coarser grids, else the same."""
        return _shown(self, layout) if self.replacement == "skip" else layout


class Division(NamedTuple):
    """T tokens in N cells: `cell` [T] is each token's (−1: dropped); `first` [N] is each cell's top-left token."""

    cell: NDArray[np.int64]
    first: NDArray[np.int64]


@lru_cache(maxsize=4096)
def _shown(cells: Cells, layout: Layout) -> Layout:
    return tuple(_coarser(cells, part) if isinstance(part, Block) else part for part in layout)


def _coarser(cells: Cells, block: Block) -> Block:
    h, w = (side // cells.size if cells.released else -(-side // cells.size) for side in (block.h, block.w))
    return replace(block, h=h, w=w, stride=cells.size, grid=(block.h, block.w))


@lru_cache(maxsize=512)  # images of one shape share it, and shapes are few
def _divide(cells: Cells, layout: Layout) -> Division:
    import numpy as np

    firsts, start = [], 0
    for block in blocks(layout):
        firsts.append(_first_of_cell(cells, block, start))
        start += block.h * block.w
    first_of_token = np.concatenate(firsts)
    kept = first_of_token >= 0
    first, inverse = np.unique(first_of_token[kept], return_inverse=True)
    cell = np.full(len(first_of_token), -1, dtype=np.int64)
    cell[kept] = inverse
    return Division(cell, first)


def _first_of_cell(cells: Cells, block: Block, start: int) -> NDArray[np.int64]:
    """Return [h·w]: the top-left token of each token's cell, counted over all blocks; −1 for a dropped token."""
    import numpy as np

    size = cells.size
    row, col = np.divmod(np.arange(block.h * block.w), block.w)
    first: NDArray[np.int64] = start + (row - row % size) * block.w + (col - col % size)
    if not cells.released:
        return first
    odd = (row >= block.h - block.h % size) | (col >= block.w - block.w % size)
    if cells.replacement == "zero" and odd.any():
        raise MediaError("grid", f"{cells} cannot take a grid of {block.h}×{block.w}: {size} must divide both sides")
    if cells.replacement == "skip" and odd.all():
        raise MediaError("grid", f"{cells} leaves no token of a grid of {block.h}×{block.w}")
    own = start + np.arange(block.h * block.w)
    return np.where(odd, -1 if cells.replacement == "skip" else own, first)
