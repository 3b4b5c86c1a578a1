"""Muon (K. Jordan, 2024): momentum made orthogonal by Newton–Schulz, for the matrices inside the layers.

torch.optim.Muon does its iteration in bfloat16, which processors without AMX emulate; this one takes float32 on them,
and all matrices of a shape at once.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5


def orthogonal(stack: Tensor) -> Tensor:
    """[n, rows, columns] -> the nearest matrices with singular values about 1."""
    a, b, c = COEFFICIENTS
    x = stack.to(torch.bfloat16) if stack.is_cuda else stack
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """`lr` is that of AdamW: an update's root mean square is made 0.2, about that of AdamW's (Liu et al. 2025)."""

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, same in shapes.items():
                moved = orthogonal(torch.stack([self._nesterov(p, group["momentum"]) for p in same]))
                size = 0.2 * max(shape) ** 0.5
                for p, update in zip(same, moved, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)

    def _nesterov(self, p: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocity = state["velocity"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(velocity, momentum)
