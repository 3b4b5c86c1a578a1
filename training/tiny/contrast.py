"""Contrast: what belongs together nearer than everything else of the batch."""

from __future__ import annotations

from torch import Tensor

TEMPERATURE = 1 / 14


def contrast(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of rows against any of their positives (SupCon); ignored columns leave the denominator."""
    logits = logits.masked_fill(ignore & ~positive, -1e4)
    some = positive.any(1)
    logp = logits.log_softmax(1)
    return -((logp * positive).sum(1) / positive.sum(1).clamp(min=1))[some].mean()


def both_ways(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """`contrast` of rows and of columns, halved."""
    return contrast(logits, positive, ignore) / 2 + contrast(logits.T, positive.T, ignore.T) / 2
