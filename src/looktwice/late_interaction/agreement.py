"""Let neighbours vote: a match counts more if the tokens beside both sides match each other too.

    s'(i, j) = (s(i, j) + A · mean over the four neighbours d of s(i + d, j + d)) / (1 + A)

i + d and j + d are the tokens one step further in the same direction, in the grids of query and image. Neighbours
outside either grid do not vote; a token without neighbours keeps its own cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

AGREEMENT = 0.5
"""A: chosen on scenes that no reported figure uses (docs/lab/maxsim.md)."""

STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
Grids: TypeAlias = Sequence[tuple[int, int]]


def agreed(cosines: Tensor, image: Grids, query: Grids, strength: float = AGREEMENT) -> Tensor:
    """Return cosines [n, T, q] after the neighbours' vote.

    `image` and `query` are the grids (rows, columns) of both sides, whose tokens follow one another: T and q are the
    sums of rows · columns. Tokens of different grids are no neighbours.
    """
    import torch

    if not strength:
        return cosines
    columns = torch.split(cosines, [h * w for h, w in query], dim=2)
    parts = [torch.split(one, [h * w for h, w in image], dim=1) for one in columns]
    voted = [
        torch.cat([_voted(part, own, asked, strength) for part, own in zip(row, image, strict=True)], dim=1)
        for row, asked in zip(parts, query, strict=True)
    ]
    return torch.cat(voted, dim=2) if len(voted) > 1 else voted[0]


def _voted(cosines: Tensor, image: tuple[int, int], query: tuple[int, int], strength: float) -> Tensor:
    import torch

    grid = cosines.reshape(-1, *image, *query)
    votes = torch.zeros_like(grid)
    voters = torch.zeros((1, *image, *query), dtype=grid.dtype, device=grid.device)
    for step in STEPS:
        here = [_range(d, side) for d, side in zip((*step, *step), (*image, *query), strict=True)]
        there = [_range(-d, side) for d, side in zip((*step, *step), (*image, *query), strict=True)]
        votes[(slice(None), *here)] += grid[(slice(None), *there)]
        voters[(slice(None), *here)] += 1
    weight = strength * (voters > 0)
    return ((grid + weight * votes / voters.clamp(min=1)) / (1 + weight)).reshape(cosines.shape)


def _range(step: int, side: int) -> slice:
    """Return the places of a side that have a neighbour one `step` further."""
    return slice(max(0, -step), side - max(0, step))
