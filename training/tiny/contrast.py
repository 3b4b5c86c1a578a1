"""Contrast: what belongs together nearer than everything else of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 1 / 14
SHARPER = 20  # scale of cosines to all names at once


def contrast(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of rows against any of their positives (SupCon); ignored columns leave the denominator."""
    logits = logits.masked_fill(ignore & ~positive, -1e4)
    some = positive.any(1)
    logp = logits.log_softmax(1)
    return -((logp * positive).sum(1) / positive.sum(1).clamp(min=1))[some].mean()


def any_of(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of rows against their positives taken together; rows without one do not count."""
    some = positive.any(1)
    right = logits[some].masked_fill(~positive[some], -1e4).logsumexp(1)
    return (logits[some].logsumexp(1) - right).mean()


def both_ways(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """`contrast` of rows and of columns, halved."""
    return contrast(logits, positive, ignore) / 2 + contrast(logits.T, positive.T, ignore.T) / 2


def among_names(vectors: Tensor, looks: Tensor, number: Tensor) -> Tensor:
    """Cross-entropy of unit vectors [n, d] telling their name from all others of training, looks [names, d]."""
    return F.cross_entropy(SHARPER * vectors @ looks.T, number)


def among_all(pictures: Tensor, known: Tensor, picture: Tensor, number: Tensor) -> Tensor:
    """The same for pictures [n, d] of several things: region r says that `picture[r]` shows `known[number[r]]`."""
    shown = torch.zeros(len(pictures), len(known), dtype=torch.bool, device=pictures.device)
    shown[picture, number] = True
    return contrast(SHARPER * pictures @ known.T, shown, shown)
