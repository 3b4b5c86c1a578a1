"""Store the tokens themselves, in the dtype of the model that made them (`none`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.codecs.codebook import Codebook


@dataclass(frozen=True, slots=True)
class Plain:
    """`none`: lossless; 2 bytes per dimension from a bfloat16 model, 4 from a float32 one."""

    def __str__(self) -> str:
        return "none"

    def row_bytes(self, dim: int, itemsize: int) -> int:
        """Return the bytes of one token of width `dim`."""
        return dim * itemsize

    def encode(self, rows: Tensor, codebook: Codebook | None, stream: int) -> Tensor:
        """View [N, d] as uint8 [N, d · itemsize]."""
        import torch

        return rows.contiguous().view(torch.uint8)

    def decode(
        self, codes: Tensor, stored: torch.dtype, dtype: torch.dtype, codebook: Codebook | None, stream: int
    ) -> Tensor:
        """View uint8 [N, d · itemsize] as [N, d] of `stored`, cast to `dtype` if that differs."""
        return codes.contiguous().view(stored).to(dtype)
