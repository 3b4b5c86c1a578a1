"""What the released code of 2604.13268 does to logits without saying so.

It reads `generate(..., output_scores=True)`, which gives scores after the checkpoint's logits processors; Qwen2.5-VL
checkpoints set a repetition penalty, and the pair's own tokens, digits included, count as said before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def penalty(model: Any) -> float:
    """The repetition penalty in a checkpoint's generation configuration; 1 where there is none."""
    config = getattr(model, "generation_config", None)
    return float(getattr(config, "repetition_penalty", None) or 1.0)


def penalise(logits: Tensor, ids: Sequence[Tensor], factor: float) -> Tensor:
    """Divide positive and multiply negative logits [n, V] of the tokens in each row's prompt (`ids`, [T] each)."""
    if factor == 1.0:
        return logits
    out = logits.clone()
    for row, seen in zip(out, ids, strict=True):
        said = torch.unique(seen.to(row.device))
        row[said] = torch.where(row[said] < 0, row[said] * factor, row[said] / factor)
    return out
