"""Quantise each token to int8: scale it by its largest magnitude and round to −127…127."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.codecs.codebook import Codebook

SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Int8:
    """`int8`: 4 bytes of scale (float32) and one byte per dimension; the error is at most half a step, max|x| / 254."""

    def __str__(self) -> str:
        return "int8"

    def row_bytes(self, dim: int, itemsize: int) -> int:
        """Return the bytes of one token of width `dim`, independent of its own item size."""
        return SCALE_BYTES + dim

    def encode(self, rows: Tensor, codebook: Codebook | None, stream: int) -> Tensor:
        """Turn [N, d] into uint8 [N, 4 + d]."""
        import torch

        rows = rows.float()
        scale = rows.abs().amax(1, keepdim=True) / 127
        steps = torch.where(scale > 0, rows / scale, 0).round().clamp(-127, 127).to(torch.int8)
        return torch.cat([scale.view(torch.uint8), steps.view(torch.uint8)], dim=1)

    def decode(
        self, codes: Tensor, stored: torch.dtype, dtype: torch.dtype, codebook: Codebook | None, stream: int
    ) -> Tensor:
        """Turn uint8 [N, 4 + d] into [N, d] of `dtype`, on the codes' device."""
        import torch

        scale = codes[:, :SCALE_BYTES].contiguous().view(torch.float32)
        return (codes[:, SCALE_BYTES:].view(torch.int8) * scale).to(dtype)
