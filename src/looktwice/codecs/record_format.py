"""Pack the bytes of one image's codes. Version 1, little-endian:

    offset  type     what
    0       2 bytes  "LT"
    2       uint8    version
    3       uint8    dtype of the tokens: 0 float32, 1 float16, 2 bfloat16
    4       uint8    further levels L (DeepStack), 0 for most models
    5       3 bytes  zero
    8       uint32   d, width of a token
    12      uint32   N, tokens kept
    16      uint32   CRC-32 of the layout as JSON (`layout.to_json`)
    20      uint32   CRC-32 of the codec's name and codebook
    24      …        group and cluster only: T labels of ⌈log2 N⌉ bits, lowest bit first, padded to whole bytes
    …       …        (1 + L) × N rows of codes, features first

Knows no codec: it packs, and refuses impossible values.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from looktwice.errors import Damaged

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

VERSION = 1
HEADER = struct.Struct("<2sBBB3xIIII")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Header:
    """The first 24 bytes of a record."""

    dtype: str
    levels: int
    dim: int
    kept: int
    layout_crc: int
    codec_crc: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the dtype in which the model made the tokens."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def pack(self) -> bytes:
        """Return the header's bytes."""
        code = DTYPES.index(self.dtype)
        return HEADER.pack(b"LT", VERSION, code, self.levels, self.dim, self.kept, self.layout_crc, self.codec_crc)


def read_header(data: bytes) -> Header:
    """Read the header. Raises Damaged for other bytes and for a later version."""
    if len(data) < HEADER.size or data[:2] != b"LT":
        raise Damaged("These are not token codes; index that item again.")
    _, version, dtype, *numbers = HEADER.unpack_from(data)
    if version != VERSION:
        raise Damaged(
            f"Token codes of version {version} are newer than {VERSION}, the latest known here; upgrade looktwice."
        )
    if dtype >= len(DTYPES) or not numbers[1] or not numbers[2]:
        raise Damaged("The header of these token codes is damaged; index that item again.")
    return Header(DTYPES[dtype], *numbers)


def label_bits(kept: int) -> int:
    """Return ⌈log2 kept⌉: the bits that distinguish `kept` things."""
    return (kept - 1).bit_length()


def label_bytes(tokens: int, kept: int) -> int:
    """Return the bytes of `tokens` labels."""
    return -(-tokens * label_bits(kept) // 8)


def pack_labels(label: NDArray[np.int64], kept: int) -> bytes:
    """Pack [T] labels below `kept`, lowest bit first."""
    import numpy as np

    bits = (label[:, None] >> np.arange(label_bits(kept))) & 1
    return np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()


def unpack_labels(data: bytes, tokens: int, kept: int) -> NDArray[np.int64]:
    """Undo `pack_labels`. Raises Damaged for a label out of range."""
    import numpy as np

    width = label_bits(kept)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little", count=tokens * width)
    label: NDArray[np.int64] = bits.reshape(tokens, width) @ (1 << np.arange(width))
    if label.max(initial=0) >= kept:
        raise Damaged("The labels of these token codes are damaged; index that item again.")
    return label
