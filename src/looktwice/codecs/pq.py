"""Quantise products: cut a token into sub-vectors and name each by its nearest of 2^bits centroids.

Jégou et al., TPAMI 2011; 2604.13268 uses FAISS with 448 sub-vectors of 8 dimensions at width 3,584. FAISS trains and,
on a CPU, encodes. It never trains polysemously, which takes minutes to hours and serves a search that looktwice never
does. Decoding is a gather in torch, on the device of the codes. OPQ (Ge et al., CVPR 2013) rotates first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from looktwice.errors import Mismatch, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.codecs.codebook import Codebook

LEAST_BITS, MOST_BITS = 2, 12
ENCODE_FLOATS = 1 << 24  # distances held at once while torch encodes


@dataclass(frozen=True, slots=True)
class PQ:
    """`pq8`, `pq16` (the width of a sub-vector), `pq:448` (their number), `pq16x6` (bits), `opq16` (rotated first).

    `late64+opq4` keeps only the 64 principal dimensions of the collection's tokens before it.
    """

    width: int | None = 16
    count: int | None = None
    bits: int = 8
    rotated: bool = False
    late: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) == (self.count is None):
            raise UsageError("A product quantiser needs either a width or a number of sub-vectors: pq16 or pq:448.")
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise UsageError(f"{self}: the bits of a code must be from {LEAST_BITS} to {MOST_BITS}; choose another.")

    def __str__(self) -> str:
        split = f":{self.count}" if self.width is None else f"{self.width}"
        name = f"{'opq' if self.rotated else 'pq'}{split}{'' if self.bits == 8 else f'x{self.bits}'}"
        return name if self.late is None else f"late{self.late}+{name}"

    @property
    def projected(self) -> bool:
        """Return whether a matrix is applied before the tokens are cut."""
        return self.rotated or self.late is not None

    def sub_vectors(self, dim: int) -> int:
        """Return M. Raises Mismatch, naming those that would fit, if the width or number does not divide `dim`."""
        if self.late is not None and self.late > dim:
            raise Mismatch(f"{self} keeps more dimensions than tokens of width {dim} have; choose late{dim} or less.")
        dim = dim if self.late is None else self.late
        step = self.width if self.count is None else self.count
        if not step or dim % step:
            kind = "widths" if self.count is None else "numbers"
            fits = ", ".join(str(n) for n in range(1, dim + 1) if dim % n == 0)
            raise Mismatch(f"{self} does not divide tokens of width {dim}; {kind} of sub-vectors that do: {fits}.")
        return dim // step if self.count is None else step

    def row_bytes(self, dim: int, itemsize: int) -> int:
        """Return the bytes of one token of width `dim`: M codes of `bits` bits, padded to whole bytes."""
        return -(-self.sub_vectors(dim) * self.bits // 8)

    def check(self, book: Codebook, dim: int, streams: int) -> None:
        """Raise Mismatch unless a codebook is one of this quantiser for tokens of width `dim` in `streams` streams."""
        if book.quantiser_spec != str(self):
            raise Mismatch(f"The codebook was trained for {book.quantiser_spec}, not for {self}; train another.")
        if (book.dim, book.streams) != (dim, streams):
            raise Mismatch(
                f"The codebook is for tokens of width {book.dim} with {book.streams - 1} further levels, but the model "
                f"gives width {dim} with {streams - 1}; train one for this model."
            )
        shape = (self.sub_vectors(dim), 2**self.bits)
        if tuple(book.centroids.shape[1:3]) != shape or (book.rotations is not None) != self.projected:
            raise Mismatch(f"The codebook does not have the shape that {self} needs at width {dim}; train another.")

    def encode(self, rows: Tensor, codebook: Codebook | None, stream: int) -> Tensor:
        """Turn [N, d] into uint8 [N, row_bytes]: by FAISS on a CPU, in torch on an accelerator."""
        import torch

        book = _needed(self, codebook)
        rows = book.rotate(rows.float(), stream)
        if rows.device.type == "cpu":
            return torch.from_numpy(book.quantiser(stream).compute_codes(rows.contiguous().numpy()))
        return pack_codes(nearest_centroids(rows, book.table(rows.device, torch.float32)[stream]), self.bits)

    def decode(
        self, codes: Tensor, stored: torch.dtype, dtype: torch.dtype, codebook: Codebook | None, stream: int
    ) -> Tensor:
        """Turn uint8 [N, row_bytes] into [N, d] of `dtype`, on the codes' device."""
        import torch

        book = _needed(self, codebook)
        table = book.table(codes.device, torch.float32 if self.projected else dtype)[stream]
        count, size, width = table.shape
        index = unpack_codes(codes, count, self.bits) + book.offsets(codes.device)
        rows = table.view(count * size, width).index_select(0, index.flatten()).view(len(codes), count * width)
        return book.rotate_back(rows, stream).to(dtype)


def _needed(quantiser: PQ, codebook: Codebook | None) -> Codebook:
    if codebook is None:
        raise UsageError(f"{quantiser} needs a codebook: train one on a sample of tokens, or load one.")
    return codebook


def nearest_centroids(rows: Tensor, table: Tensor) -> Tensor:
    """Return int [N, M]: the nearest centroid of `table` [M, K, width] for each sub-vector of `rows` [N, d]."""
    import torch

    count, size, width = table.shape
    norms = table.square().sum(-1)[:, None]
    chunks = torch.split(rows.view(-1, count, width), max(1, ENCODE_FLOATS // (count * size)))
    parts = [torch.baddbmm(norms, part.transpose(0, 1), table.mT, alpha=-2).argmin(-1).T for part in chunks]
    return torch.cat(parts)


def pack_codes(index: Tensor, bits: int) -> Tensor:
    """Pack [N, M] codes of `bits` bits into uint8 [N, bytes], lowest bit first, as FAISS does."""
    import torch

    if bits == 8:
        return index.to(torch.uint8)
    stream = (index.int()[..., None] >> torch.arange(bits, device=index.device)) & 1
    stream = torch.nn.functional.pad(stream.flatten(1), (0, -stream[0].numel() % 8))
    weights = 1 << torch.arange(8, device=index.device, dtype=torch.int32)
    return (stream.view(len(index), -1, 8) * weights).sum(-1).to(torch.uint8)


def unpack_codes(codes: Tensor, count: int, bits: int) -> Tensor:
    """Unpack uint8 [N, bytes] into int32 [N, `count`]."""
    import torch

    if bits == 8:
        return codes.int()
    stream = (codes[..., None] >> torch.arange(8, device=codes.device, dtype=torch.uint8)) & 1
    stream = stream.flatten(1)[:, : count * bits].view(len(codes), count, bits)
    return (stream.int() << torch.arange(bits, device=codes.device, dtype=torch.int32)).sum(-1, dtype=torch.int32)
