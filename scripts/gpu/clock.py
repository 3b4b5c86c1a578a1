"""Seconds of work on a device, and what the device reaches on one large matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def sync(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: str, *, repeats: int = 5, warm: int = 2) -> float:
    """Median seconds of `work`, after a warm-up; each run is waited for."""
    for _ in range(warm):
        work()
    taken = []
    for _ in range(repeats):
        sync(device)
        begun = time.perf_counter()
        work()
        sync(device)
        taken.append(time.perf_counter() - begun)
    return median(taken)


def matmul_peak(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of a product of two square matrices: what this device gives at best, now."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, repeats=15, warm=5)


def peak(device: str, dtype: torch.dtype, smoke: bool) -> float:
    """The best over a few sizes: the largest is not always the fastest."""
    sides = (256, 512) if smoke else (4096, 8192, 12288)
    return max(matmul_peak(device, dtype, side) for side in sides)
