"""Weigh query tokens by how rare their best matches are in a collection.

Sums are in float32. The score of an image does not depend on the images beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

POWER = 6.0
"""Power of the rarities: chosen on scenes that no reported figure uses (docs/lab/maxsim.md)."""


def unit_rows(rows: Tensor) -> Tensor:
    """Return [q, d] with rows of length 1 in float32; rows without a direction become zeros."""
    import torch

    rows = rows.float()
    lengths = rows.norm(dim=1, keepdim=True)
    known = torch.isfinite(lengths) & (lengths > 0)
    return torch.where(known, torch.nan_to_num(rows) / lengths.where(known, torch.ones_like(lengths)), 0.0)


def rarity(best: Tensor) -> Tensor:
    """Return [q] in [0, 2]: 1 minus the mean best cosine [n, q] of each query token over a sample of images."""
    return (1 - best.mean(dim=0)).clamp(min=0)


def weights_of(rarities: Tensor, power: float = POWER) -> Tensor | None:
    """Return weights [q] that add up to 1; None if no token is rare, or the sample was empty."""
    import torch

    raised = rarities.pow(power) * (rarities > 0)
    total = float(raised.sum())
    return raised / total if torch.isfinite(raised).all() and total > 0 else None


def scores_of(best: Tensor, weights: Tensor) -> Tensor:
    """Return [n]: the weighted sums of the best cosines [n, q]; [n, V] of those of several views [n, V, q]."""
    return best @ weights
