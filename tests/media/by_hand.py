"""Image files written byte by byte, of kinds that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def tiff(
    samples: np.ndarray,
    bits: int,
    *,
    photometric: int = 1,
    extra: int | None = None,
    sample_format: int = 1,
    order: str = "<",
    colours: Sequence[int] = (),
    more: dict[int, tuple[int, Sequence[int]]] | None = None,
) -> bytes:
    """An uncompressed TIFF of (h, w) or (h, w, n) samples, each of `bits` bits; `more` maps tags to (type, values)."""
    height, width = samples.shape[:2]
    count = samples.shape[2] if samples.ndim == 3 else 1
    body = packed(samples.reshape(height, -1), bits, order)
    short, long = 3, 4
    values: dict[int, tuple[int, Sequence[int]]] = {
        256: (short, [width]),
        257: (short, [height]),
        258: (short, [bits] * count),
        259: (short, [1]),
        262: (short, [photometric]),
        277: (short, [count]),
        278: (short, [height]),
        279: (long, [len(body)]),
        339: (short, [sample_format] * count),
    }
    if extra is not None:
        values[338] = (short, [extra])
    if colours:
        values[320] = (short, colours)
    values |= more or {}
    values[273] = (long, [8])
    start = 8 + len(body) + len(body) % 2
    after = start + 2 + 12 * len(values) + 4
    entries, tail = b"", b""
    for tag, (kind, numbers) in sorted(values.items()):
        data = struct.pack(f"{order}{len(numbers)}{'H' if kind == short else 'B' if kind == 1 else 'I'}", *numbers)
        if len(data) > 4:
            place = struct.pack(f"{order}I", after + len(tail))
            tail += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers) // (2 if kind == 10 else 1)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    padded = body + b"\0" * (len(body) % 2)
    return head + padded + struct.pack(f"{order}H", len(values)) + entries + bytes(4) + tail


def packed(rows: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of samples as bytes: samples below 8 bits and of 12 bits follow each other, highest bit first."""
    if bits in (8, 16, 32) or rows.dtype.kind == "f":
        kind = {"f": "f", "i": "i", "u": "u"}[rows.dtype.kind]
        return rows.astype(f"{order}{kind}{bits // 8}").tobytes()
    digits = (rows[..., None].astype(np.uint32) >> np.arange(bits - 1, -1, -1)) & 1
    return b"".join(np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in digits)


def png(
    samples: np.ndarray, bits: int, colour_type: int, *, clear: Sequence[int] = (), interlaced: bool = False
) -> bytes:
    """A PNG of (h, w) grey or (h, w, n) samples with a transparent colour; interlaced ones must be 1 x 1."""
    height, width = samples.shape[:2]
    assert not interlaced or (width, height) == (1, 1)
    rows = samples.reshape(height, -1)
    raw = b"".join(b"\0" + packed(row[None], bits) for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced))
    parts = [(b"IHDR", head)]
    if clear:
        parts.append((b"tRNS", struct.pack(f">{len(clear)}H", *clear)))
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
