"""Decode the bytes of an image to upright RGB; every failure has one fixed reason word.

Every image that a model sees passes through `load`: the same file always gives the same pixels.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING

from looktwice.errors import MediaError
from looktwice.sources import formats
from looktwice.sources.decoding import modes, pillow, worker
from looktwice.sources.decoding.pillow import MAX_ASPECT, MAX_PIXELS, MAX_SIDE, WORKING_PIXELS, Size
from looktwice.sources.formats import FORMATS, SUFFIXES, begins_like_image, kind_of
from looktwice.sources.reading import WHOLE, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "REASONS",
    "SUFFIXES",
    "WORKING_PIXELS",
    "Size",
    "begins_like_image",
    "kind_of",
    "load",
    "reduced",
    "thumbnail",
    "upright",
]

REASONS = {
    "empty": "the file has no bytes, or the image no pixels",
    "not-an-image": "the bytes are not one of " + ", ".join(FORMATS),
    **formats.NEEDS,
    "truncated": "the image ends early",
    "corrupt": "the decoder failed",
    "too-large": f"the image has over {MAX_PIXELS:,} pixels, needs too much memory, or is a JPEG of too many scans",
    "too-long": f"one side has more than {MAX_SIDE:,} pixels, or more than {MAX_ASPECT} times the other",
    "too-slow": f"decoding took longer than {worker.SECONDS} s",
    "unsupported": "the pixel values have no known white, such as heights in metres, or the image is of a rare kind",
}
"""What `MediaError.reason` can be when it comes from this module."""


def load(data: bytes, reading: Reading = WHOLE, *, max_pixels: int = MAX_PIXELS) -> tuple[Image, Size]:
    """Decode the first frame of `data` to upright RGB, alpha over white.

    Returns the image and the upright (width, height) that the file states. The image itself is smaller for files above
    `WORKING_PIXELS`, and for large ones if `reading` says what side the model reads. Raises MediaError with a word from
    `REASONS`.
    """
    if not data:
        raise MediaError("empty", "the file has no bytes")
    apart = partial(worker.image, data, reading, max_pixels)
    if formats.box_kind(data) in ("AVIF", "HEIF"):
        return apart()
    for extra, matches in ((formats.JXL, formats.is_jxl), (formats.RAW, formats.is_raw)):
        if matches(data):
            if not extra.installed:
                raise extra.missing()
            return apart()
    return pillow.decode(data, reading, max_pixels, apart)


def upright(image: Image) -> Image:
    """Return an image from memory as `load` would return its file: upright RGB, alpha over white, not huge."""
    return pillow.upright(image, WHOLE)


def reduced(image: Image, reading: Reading) -> Image:
    """Return an RGB image from memory as small as `reading` allows."""
    factor = reading.factor(image.size)
    return modes.fitted(image.reduce(factor), image.size, factor) if factor > 1 else image


def thumbnail(image: Image, side: int) -> bytes:
    """Return `image` as JPEG bytes that fit into a `side` x `side` square; a small image is not enlarged."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()
