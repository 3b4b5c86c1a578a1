"""Rotate each token at random and round every number to one of 2^bits levels. Nothing is trained.

A random rotation spreads a token's energy evenly, so that its numbers are nearly normal and one table of levels fits
them all: those of the least square error on a normal distribution (Lloyd, IEEE Trans. Inf. Theory 1982). TurboQuant and
RaBitQ build on the same step. The rotation follows from the width alone, so it is never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from looktwice.codecs.pq import pack_codes, unpack_codes
from looktwice.errors import Mismatch, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.codecs.codebook import Codebook

SCALE_BYTES = 4
LEAST_BITS, MOST_BITS = 1, 6
ROUNDS = 2000  # of Lloyd's iteration; six bits are the slowest


@dataclass(frozen=True, slots=True)
class RotatedScalar:
    """`rsq4`: 4 bytes of scale (float32, root mean square) and 4 bits per dimension after a random rotation."""

    bits: int

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise UsageError(f"{self}: the bits of a number must be from {LEAST_BITS} to {MOST_BITS}; choose another.")

    def __str__(self) -> str:
        return f"rsq{self.bits}"

    def row_bytes(self, dim: int, itemsize: int) -> int:
        """Return the bytes of one token of width `dim`. Raises Mismatch for a width that 8 does not divide."""
        if dim % 8:
            raise Mismatch(f"{self} takes tokens whose width 8 divides, not {dim}; use int8.")
        return SCALE_BYTES + dim * self.bits // 8

    def encode(self, rows: Tensor, codebook: Codebook | None, stream: int) -> Tensor:
        """Turn [N, d] into uint8 [N, row_bytes]."""
        import torch

        self.row_bytes(rows.shape[1], 4)
        rows = rows.float()
        scale = rows.square().mean(1, keepdim=True).sqrt()
        turned = (rows @ _rotation(rows.shape[1]).to(rows.device).T) / scale.clamp_min(torch.finfo(torch.float32).tiny)
        levels = _levels(self.bits).to(rows.device)
        index = torch.bucketize(turned.contiguous(), (levels[1:] + levels[:-1]) / 2)
        return torch.cat([scale.view(torch.uint8), pack_codes(index, self.bits)], dim=1)

    def decode(
        self, codes: Tensor, stored: torch.dtype, dtype: torch.dtype, codebook: Codebook | None, stream: int
    ) -> Tensor:
        """Turn uint8 [N, row_bytes] into [N, d] of `dtype`, on the codes' device."""
        import torch

        scale = codes[:, :SCALE_BYTES].contiguous().view(torch.float32)
        packed = codes[:, SCALE_BYTES:]
        width = packed.shape[1] * 8 // self.bits
        levels = _levels(self.bits).to(codes.device)[unpack_codes(packed, width, self.bits).long()]
        return (levels @ _rotation(width).to(codes.device) * scale).to(dtype)


@cache
def _rotation(dim: int) -> Tensor:
    """Return an orthogonal matrix [d, d] that every machine makes alike.

    RandomState draws the same numbers in every version of NumPy, and positive diagonals make the factors unique.
    """
    import numpy as np
    import torch

    q, r = np.linalg.qr(np.random.RandomState(dim).standard_normal((dim, dim)))
    return torch.from_numpy(q * np.sign(np.diag(r))).float()


@cache
def _levels(bits: int) -> Tensor:
    """Return the 2^bits levels, ascending, of least square error on a standard normal distribution."""
    import numpy as np
    import torch
    from scipy.stats import norm

    levels = norm.ppf((np.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(ROUNDS):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        levels = -np.diff(norm.pdf(edges)) / np.diff(norm.cdf(edges))
    return torch.from_numpy(levels).float()
