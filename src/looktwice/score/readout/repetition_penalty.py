"""Apply the repetition penalty that the released code of 2604.13268 applies without saying so.

That code reads `generate(..., output_scores=True)`, which returns scores after the checkpoint's logits processors.
Qwen2.5-VL checkpoints set a repetition penalty, and it also hits tokens of the prompt, its digits included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def penalty(model: Any) -> float:
    """Return the repetition penalty of a checkpoint's generation configuration; 1 if it sets none."""
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
