"""Convert a decoded image of any mode to sRGB over white, block by block, so that memory holds one copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from looktwice.errors import MediaError
from looktwice.sources.decoding import icc, tiff

if TYPE_CHECKING:
    from PIL.Image import Image

    from looktwice.types import FloatArray

BLOCK = (4096, 256)
"""Columns and rows of a large image that are converted at once."""


@dataclass(frozen=True, slots=True)
class ToneRange:
    """How an image's numbers become 8 bits: the grey that means white (None: they are 8 bits), negative, profile."""

    white: float | None = None
    negative: bool = False
    profile: bytes | None = None

    @classmethod
    def of(cls, image: Image, profile: bytes | None) -> ToneRange:
        """Read them from a decoded image. Raises MediaError for grey values without a known white."""
        return cls(tiff.white_of(image) or white_point(image), tiff.is_negative(image), profile)


def to_rgb(image: Image, factor: int, *, colours: bool) -> Image:
    """Convert to RGB, alpha over white, reduced by a whole factor; with `colours` by the embedded profile."""
    profile = image.info.get("icc_profile") if colours else None
    tones = ToneRange.of(image, profile)
    rgb = _reduced(image, factor, tones)
    if profile is None or image.mode in ("CMYK", "LAB") or _has_alpha(image):
        return rgb
    return icc.to_srgb(rgb.convert("L") if _is_grey(image) else rgb, profile)


def _is_grey(image: Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def _has_alpha(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _reduced(image: Image, factor: int, tones: ToneRange) -> Image:
    if factor <= 1:
        return converted(image, tones)
    from PIL import Image as pil

    small: Image = pil.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for box in blocks(image.size, factor):
        small.paste(converted(image.crop(box), tones).reduce(factor), (box[0] // factor, box[1] // factor))
    return small


def blocks(size: tuple[int, int], factor: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes that cover an image, each of about BLOCK pixels and of whole groups of `factor` x `factor` pixels."""
    wide, high = (max(1, side // factor) * factor for side in BLOCK)
    for top in range(0, size[1], high):
        for left in range(0, size[0], wide):
            yield left, top, min(size[0], left + wide), min(size[1], top + high)


def converted(image: Image, tones: ToneRange) -> Image:
    """Convert one block to RGB."""
    if tones.white is not None:
        return _from_deep(image, tones.white, tones.negative).convert("RGB")
    if image.mode == "LAB":
        return icc.lab_to_srgb(image)
    if image.mode == "CMYK" and tones.profile is not None:
        return icc.cmyk_to_srgb(image, tones.profile) or image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if not _has_alpha(image):
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    if tones.profile is not None:
        opaque = icc.to_srgb(image.convert("L") if _is_grey(image) else coloured.convert("RGB"), tones.profile)
        opaque.putalpha(coloured.getchannel("A"))
        coloured = opaque
    return _over_white(coloured)


def _over_white(coloured: Image) -> Image:
    from PIL import Image as pil

    backdrop: Image = pil.new("RGBA", coloured.size, "white")
    backdrop.alpha_composite(coloured)
    return backdrop.convert("RGB")


def _from_deep(image: Image, white: float, negative: bool) -> Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits; Pillow's own conversion clips at 255."""
    import numpy as np
    from PIL import Image as pil

    values = _deep_values(image)
    values *= 255 / white
    if negative:
        np.subtract(255, values, out=values)
    grey: Image = pil.fromarray(np.rint(values, out=values).astype(np.uint8))
    return grey


def _deep_values(image: Image) -> FloatArray:
    import numpy as np

    values = np.asarray(image).astype(np.float32)
    if isinstance(clear := image.info.get("transparency"), int):
        values[values == clear] = 65535
    return values


def white_point(image: Image) -> float | None:
    """Return the grey value that means white; None for images of 8 bits a channel."""
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    parts = (_deep_values(image.crop(box)) for box in blocks(image.size, 1))
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    low, high = float(np.min(lows)), float(np.max(highs))
    if low >= 0:  # also False for NaN
        for white in (1, 255, 65535) if image.mode == "F" else (255, 65535):
            if high <= white:
                return white
    known = f"grey values from {low:g} to {high:g} have no known white"
    raise MediaError("unsupported", f"{known}; convert it to 8 or 16 bits")


def fitted(image: Image, size: tuple[int, int], factor: int) -> Image:
    """Return an image that was reduced by `factor` from `size` without the margin of its last row and column.

    Their groups reach over the edge. Left in, everything would be stretched by up to one pixel.
    """
    width, height = size[0] / factor, size[1] / factor
    if (width, height) == image.size:
        return image
    from PIL.Image import Resampling

    whole = max(1, round(width)), max(1, round(height))
    return image.resize(whole, Resampling.BICUBIC, box=(0, 0, width, height))


def excess(size: tuple[int, int], pixels: int) -> float:
    """Return by how much each side of an image is too long to have at most so many pixels."""
    return math.sqrt(size[0] * size[1] / pixels)
