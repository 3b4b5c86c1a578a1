"""Say why a damaged or rare file cannot be decoded, from its header: decoders call most of these truncated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from looktwice.errors import MediaError
from looktwice.sources.formats import JPEG, PNG

_FRAME = re.compile(rb"\xff+([\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf])")
_SEGMENT = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000, 50001}
_TYPES = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}  # PNG: depths by colour type


def explain(data: bytes, tags: Mapping[int, Any] | None = None) -> MediaError | None:
    """Return the true reason why `data` cannot be decoded, None if its header shows none.

    `tags` are those of a TIFF, if it could be opened.
    """
    for magic, check in _CHECKS.items():
        if data.startswith(magic):
            return check(data)
    return None if tags is None else _tiff(tags)


def is_cut(data: bytes) -> bool:
    """Return whether a WebP or a file of ISO media boxes ends before its stated length; decoders do not say so."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data[4:8] != b"ftyp":
        return False
    at = 0
    while 0 <= at <= len(data) - 8:
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8:  # 0: to the end of the file; 2 to 7: damage
            return False
        at += size
    return at != len(data)


def is_whole(data: bytes) -> bool:
    """Return whether a PNG has its end, so that an error in it is damage."""
    return data.startswith(PNG) and b"IEND" in data[-64:]


def _jpeg(data: bytes) -> MediaError | None:
    at = 2
    for _ in range(1000):
        found = _SEGMENT.search(data, at)
        if found is None or found[1] in (b"\xda", b"\xd9"):
            return None
        if _FRAME.match(data, found.start()):
            return _frame(found[1][0], data[found.end() : found.end() + 8])
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    return None


def _frame(marker: int, body: bytes) -> MediaError | None:
    if len(body) < 8:
        return None
    depth, height, width, parts = body[2], int.from_bytes(body[3:5]), int.from_bytes(body[5:7]), body[7]
    if marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
        return MediaError("unsupported", "it is a lossless or hierarchical JPEG; save it again as a baseline JPEG")
    if depth != 8:
        return MediaError("unsupported", f"it is a JPEG of {depth} bits a sample; save it again with 8 bits")
    if not width or not height:
        return MediaError("corrupt", f"its header says {width} x {height} pixels")
    if parts not in (1, 3, 4):
        return MediaError("unsupported", f"it is a JPEG of {parts} colour channels; save it again as RGB")
    return None


def _png(data: bytes) -> MediaError | None:
    if len(data) < 29 or data[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not width or not height:
        return MediaError("corrupt", f"its header says {width} x {height} pixels")
    depth, colours = data[24], data[25]
    if depth not in _TYPES.get(colours, ()):
        return MediaError("corrupt", f"its header says {depth} bits with colour type {colours}; PNG has no such kind")
    if any(data[26:28]) or data[28] > 1:
        return MediaError("corrupt", "its compression or interlacing is unknown")
    return None


def _bmp(data: bytes) -> MediaError | None:
    if len(data) >= 34 and int.from_bytes(data[14:18], "little") >= 40:
        if not any(data[18:22]) or not any(data[22:26]):
            return MediaError("corrupt", "its header says zero pixels")
        if int.from_bytes(data[30:34], "little") not in (0, 1, 2, 3):
            return MediaError("unsupported", "its compression is unknown; convert it to PNG")
    return None


def _tiff(tags: Mapping[int, Any]) -> MediaError | None:
    compression = tags.get(259, 1)
    if compression not in _COMPRESSIONS:
        return MediaError("unsupported", f"its compression {compression} is unknown; convert it to PNG")
    if not tags.get(256) or not tags.get(257):
        return MediaError("corrupt", f"its header says {tags.get(256, 0)} x {tags.get(257, 0)} pixels")
    return None


_CHECKS: dict[bytes, Callable[[bytes], MediaError | None]] = {
    JPEG: _jpeg,
    PNG: _png,
    b"BM": _bmp,
}
