"""Read the transparent colour of a PNG as its specification says, at every bit depth."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def mend_transparency(image: Image, data: bytes) -> Image:
    """Return a decoded PNG whose transparent colour has the scale of its pixels; `data` are its bytes.

    Pillow gives the colour in the file's own bits: 0 to 3 for two bits a sample, 0 to 65535 for 16.
    """
    clear = image.info.get("transparency")
    depth = data[24] if len(data) > 24 else 8
    if isinstance(clear, int) and image.mode in ("1", "L"):
        grey = image.convert("L")
        grey.info["transparency"] = (clear & (2**depth - 1)) * 255 // (2**depth - 1)
        return grey
    if isinstance(clear, tuple) and image.mode == "RGB":
        if depth == 16:
            return _without_colour(image, data, (clear[0], clear[1], clear[2]))
        image.info["transparency"] = tuple(value & 255 for value in clear)
    return image


def _without_colour(image: Image, data: bytes, clear: tuple[int, int, int]) -> Image:
    """Give an image of 16 bits a channel its alpha; it is decoded again for the lower bytes that Pillow drops."""
    import numpy as np
    from PIL import Image as pil

    high, low = np.asarray(image), np.asarray(_lower_bytes(data))
    wanted = np.array(clear, np.uint16)
    is_clear = ((high == wanted >> 8) & (low == (wanted & 255))).all(-1)
    result = image.copy()
    result.info.pop("transparency")
    result.putalpha(pil.fromarray(np.where(is_clear, 0, 255).astype(np.uint8)))
    return result


def _lower_bytes(data: bytes) -> Image:
    from PIL import Image as pil

    image = pil.open(io.BytesIO(data), formats=["PNG"])
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]  # unpacks the second byte of each sample
    image.load()
    return image
