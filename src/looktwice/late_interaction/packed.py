"""Hold the tokens of many images in one array, and compare query tokens with all of them at once.

Each kind answers `cosines` from its own form: plain numbers, int8 steps, or codes of a product quantiser, which are
never decoded. A token of length zero or with a NaN matches nothing: its cosine is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PORTION = 1 << 22
"""Numbers that `PackedProducts` looks up together: more would not stay in a CPU's cache."""
ROWS = 1 << 17
"""Numbers of tokens that are converted together, for the same reason."""


@dataclass(frozen=True, slots=True)
class Packed(ABC):
    """The tokens of several images, one after the other."""

    @abstractmethod
    def cosines(self, query: Tensor) -> Tensor:
        """Return float32 [N, q]: the cosine of every token with every row of `query` [q, d], which has unit rows."""


@dataclass(frozen=True, slots=True)
class PackedRows(Packed):
    """Tokens as numbers [N, d], of any length."""

    rows: Tensor

    def cosines(self, query: Tensor) -> Tensor:
        return _products(self.rows, query)


@dataclass(frozen=True, slots=True)
class PackedInt8(Packed):
    """Tokens as int8 steps [N, d]; their scales cancel in a cosine."""

    steps: Tensor

    def cosines(self, query: Tensor) -> Tensor:
        return _products(self.steps, query)


@dataclass(frozen=True, slots=True)
class PackedProducts(Packed):
    """Tokens as codes of a product quantiser: int [N, M] names one of the `centroids` [M, K, width] per sub-vector.

    The products of the query with all centroids are computed once; a token's product is a sum of M of them (asymmetric
    distance computation, Jégou et al., TPAMI 2011), and so is its squared length.
    """

    codes: Tensor
    centroids: Tensor

    def cosines(self, query: Tensor) -> Tensor:
        import torch

        count, size, width = self.centroids.shape
        parts = query.reshape(len(query), count, width)
        products = torch.einsum("mkw,qmw->mkq", self.centroids, parts)
        table = torch.cat([products, self.centroids.square().sum(-1, keepdim=True)], dim=2)
        table = table.reshape(count * size, -1).contiguous()
        places = self.codes + torch.arange(0, count * size, size, dtype=self.codes.dtype, device=self.codes.device)
        most = max(1, PORTION // (count * table.shape[1]))
        chunks = [torch.nn.functional.embedding_bag(part, table, mode="sum") for part in torch.split(places, most)]
        sums = torch.cat(chunks) if chunks else table[:0]
        return _scaled(sums[:, :-1], sums[:, -1])


def _products(rows: Tensor, query: Tensor) -> Tensor:
    """Return the cosines of `rows` [N, d] of any dtype, in parts that stay in a CPU's cache."""
    import torch

    most = len(rows) if rows.is_cuda else max(1, ROWS // rows.shape[1])
    parts = []
    for part in torch.split(rows, most) if len(rows) else ():
        wide = part.float()
        parts.append(_scaled(torch.nan_to_num(wide @ query.T), torch.linalg.vecdot(wide, wide)))
    return torch.cat(parts) if parts else query.new_zeros(0, len(query))


def _scaled(products: Tensor, squares: Tensor) -> Tensor:
    """Divide products [N, q] by the lengths of the tokens, in place; 0 for a token without a direction."""
    import torch

    known = torch.isfinite(squares) & (squares > 0)
    inverse = torch.where(known, squares, torch.ones_like(squares)).rsqrt() * known
    return products.mul_(inverse[:, None])
