"""Read a camera's raw file (extra `raw`, LibRaw): the embedded preview if it is large enough, else develop it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources.decoding import pillow
from looktwice.sources.reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_PREVIEW = 1024
"""A preview counts from this shorter side on, or from twice the side that the model reads."""

LAST = 8
"""One row in LAST is looked at, those at the bottom: LibRaw fills what a cut file lacks with zeros and is silent."""

_TURNS = {3: 3, 5: 8, 6: 6}
"""EXIF orientation by LibRaw's flip."""


def decode(data: bytes, reading: Reading, max_pixels: int) -> tuple[Image, tuple[int, int]]:
    """Decode a raw file to upright RGB. Raises MediaError."""
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as opened:
            sizes = opened.sizes
            if sizes.raw_width * sizes.raw_height > max_pixels:
                raise MediaError("too-large", f"{sizes.raw_width} x {sizes.raw_height} pixels")
            size = (sizes.height, sizes.width) if sizes.flip in (5, 6) else (sizes.width, sizes.height)
            preview = _preview(opened, reading, _TURNS.get(sizes.flip, 1))
            return (preview or _developed(opened, reading)), size
    except rawpy.LibRawError as error:
        raise _failure(error) from None


def _failure(error: Exception) -> MediaError:
    import rawpy

    if isinstance(error, rawpy.LibRawIOError):
        return MediaError("truncated", "its raw data ends early")
    if isinstance(error, rawpy.LibRawFileUnsupportedError):
        return MediaError("unsupported", "LibRaw does not know this raw format, or its header is damaged")
    said = error.args[0] if error.args else ""
    return MediaError("corrupt", said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said))


def _preview(opened: Any, reading: Reading, orientation: int) -> Image | None:
    import rawpy
    from PIL import Image as pil

    try:
        thumb = opened.extract_thumb()
    except rawpy.LibRawError:
        return None
    if thumb.format != rawpy.ThumbFormat.JPEG:
        return None
    try:
        stated = pil.open(io.BytesIO(thumb.data), formats=["JPEG", "MPO"])
        if min(stated.size) < _least(reading):
            return None
        own = stated.getexif().get(0x0112)
        image, _ = pillow.decode(thumb.data, reading, pillow.MAX_PIXELS)
    except (MediaError, OSError):
        return None
    return image if own else pillow.turned(image, orientation)


def _least(reading: Reading) -> int:
    return LEAST_PREVIEW if reading.side is None else min(LEAST_PREVIEW, 2 * reading.side)


def _developed(opened: Any, reading: Reading) -> Image:
    from PIL import Image as pil

    _check(opened.raw_image_visible)
    sizes = opened.sizes
    half = reading.factor((sizes.width, sizes.height)) > 1 or sizes.width * sizes.height > pillow.WORKING_PIXELS
    balanced = min(opened.camera_whitebalance[:3]) > 0
    pixels = opened.postprocess(use_camera_wb=balanced, half_size=half, output_bps=8)
    return pillow.upright(pil.fromarray(pixels), reading)


def _check(samples: Any) -> None:
    """Raise MediaError if nearly all samples at the bottom are zero; a sensor's noise makes most of them positive."""
    import numpy as np

    last = samples[-max(1, len(samples) // LAST) :]
    if np.count_nonzero(last) <= last.size // 100:
        raise MediaError("truncated", "its raw data ends early")
