"""Find the best match of every query token in every image, weigh the tokens by rarity, and add up.

Sums are in float32. The score of an image does not depend on the images beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.late_interaction.packed import Packed

POWER = 4.0
"""Power of the rarities: chosen on scenes that no reported figure uses (docs/lab/maxsim.md)."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches of one query with n images.

    `scores` [n] are Σ wᵢ · best[n, i]; `best` [n, q] is the cosine of each query token with the nearest token of the
    image. An image without tokens has NaN.
    """

    scores: Tensor
    best: Tensor


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


def best_of(cosines: Tensor, lengths: Tensor) -> Tensor:
    """Return [n, q]: the largest of each image's rows of `cosines` [N, q]; NaN for an image without rows."""
    import torch

    if len(lengths) == 0:
        return cosines.new_zeros(0, cosines.shape[1])
    first = int(lengths[0])
    if first and bool((lengths == first).all()):  # the usual case, and the fastest
        return cosines.view(len(lengths), first, -1).amax(1)
    found = torch.segment_reduce(cosines, "max", lengths=lengths.to(cosines.device), axis=0, unsafe=False)
    return torch.where((lengths == 0).to(found.device)[:, None], torch.nan, found)


def match(query: Tensor, packed: Packed, weights: Tensor | None = None) -> Matches:
    """Compare the rows of `query` [q, d], which have length 1, with every image; equal weights by default."""
    best = best_of(packed.cosines(query), packed.lengths)
    if weights is None:
        weights = best.new_full((len(query),), 1 / max(1, len(query)))
    return Matches(best @ weights, best)
