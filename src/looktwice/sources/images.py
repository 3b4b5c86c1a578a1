"""Decode the bytes of an image to upright RGB; every failure has one fixed reason word.

Every image that a model sees, at indexing time or at query time, passes through `load`: the same file always gives the
same pixels.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.errors import MediaError
from looktwice.sources import jpeg
from looktwice.sources.prefetch import Budget

if TYPE_CHECKING:
    from PIL.Image import Image

    from looktwice.types import FloatArray

Size: TypeAlias = tuple[int, int]

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused before they are decoded (Pillow's own limit for a suspected attack)."""

WORKING_PIXELS = 2**25
"""Larger images are reduced by a whole factor while or after decoding: no model here reads 33 megapixels."""

DECODING_PIXELS = 2**27
"""Largest number of pixels in decoding at the same time: lossless WebP takes 16 bytes for each."""

MAX_SIDE, MAX_ASPECT = 100_000, 200
"""Limits of shape: models scale the shorter side to hundreds of pixels, so a line of pixels would become gigabytes."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"])

REASONS = {
    "empty": "the file has no bytes, or the image no pixels",
    "not-an-image": "the bytes are not one of " + ", ".join(FORMATS),
    "truncated": "the image ends early",
    "corrupt": "the decoder failed",
    "too-large": f"the image has over {MAX_PIXELS:,} pixels, needs too much memory, or is a JPEG of too many scans",
    "too-long": f"one side has more than {MAX_SIDE:,} pixels, or more than {MAX_ASPECT} times the other",
    "unsupported": "the pixel values have no known white, such as heights in metres, or the TIFF is of a rare kind",
}
"""What `MediaError.reason` can be when it comes from this module."""

_OTHERS = {
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}

_BLOCK = (4096, 256)
"""Columns and rows of a large image's result that are computed at once."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BUDGET = Budget(DECODING_PIXELS)


def load(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[Image, Size]:
    """Decode the first frame of `data` to upright RGB, alpha over white.

    Returns the image and the upright (width, height) that the file states. The image itself is smaller for files above
    `WORKING_PIXELS`. Raises MediaError with a word from `REASONS`.
    """
    if not data:
        raise MediaError("empty", "the file has no bytes")
    scans = jpeg.count_scans(data) if data.startswith(_MAGIC[0]) else 0
    image = _open(data)
    for width, height in (image.size, _tile(image)):
        if width * height > max_pixels:
            raise MediaError("too-large", f"{width} x {height} pixels; the limit is {max_pixels:,}")
    if scans * image.width * image.height > jpeg.MOST_SCANNED_PIXELS:
        raise MediaError("too-large", f"{image.width} x {image.height} pixels in {scans} scans")
    _demand_shape(image)
    with _BUDGET.hold(image.width * image.height):
        return _decode(image, data)


def begins_like_picture(head: bytes) -> bool:
    """Return whether a file that starts with `head` (at least 12 bytes) may be an image that `load` reads."""
    return (
        head.startswith((*_MAGIC, *_TIFF, b"BM"))
        or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")
        or head[4:8] == b"ftyp"
    )


def upright(image: Image) -> Image:
    """Return an image from memory as `load` would return its file: upright RGB, alpha over white, not huge."""
    try:
        image.load()
        if not image.width * image.height:
            raise MediaError("empty", "the image has no pixels")
        _demand_shape(image)
        return _turned(_rgb(image), _orientation(image))
    except MediaError:
        raise
    except Exception as error:  # an image opened lazily is only read now, and may be as hostile as any file
        raise _broken(error, b"") from None


def thumbnail(image: Image, side: int) -> bytes:
    """Return `image` as JPEG bytes that fit into a `side` x `side` square; a small image is not enlarged."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


@cache
def _pillow() -> Any:
    from PIL import Image

    # Pillow warns on standard error of damaged metadata and large images, without saying in which file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def _open(data: bytes) -> Image:
    pillow = _pillow()
    try:
        image: Image = pillow.open(io.BytesIO(data), formats=FORMATS)
        return image
    except pillow.UnidentifiedImageError:
        if data.startswith(_TIFF):
            raise MediaError("unsupported", "this kind of TIFF is not supported; convert it to PNG") from None
        if data.startswith(_MAGIC) or data[4:12] == b"ftypavif" or _cut_webp(data):
            raise MediaError("truncated", "the header of the image is incomplete or damaged") from None
        raise MediaError("not-an-image", f"it is {kind_of(data)}") from None
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise MediaError("too-large", str(error)) from None
    except Exception as error:  # hostile headers make parsers raise anything, from struct.error to KeyError
        raise _broken(error, data) from None


def _demand_shape(image: Image) -> None:
    short, long = sorted(image.size)
    if long > MAX_SIDE or long > MAX_ASPECT * max(1, short):
        limit = f"at most {MAX_SIDE:,} pixels a side, and {MAX_ASPECT} times the other side"
        raise MediaError("too-long", f"{image.width} x {image.height} pixels; {limit}")


def _tile(image: Image) -> Size:
    """Return the tile size of a TIFF, which is decoded tile by tile: a tile may claim to be larger than the image."""
    sizes = [getattr(image, "tag_v2", {}).get(tag, 0) for tag in (322, 323)]
    return (sizes[0], sizes[1]) if all(isinstance(size, int) for size in sizes) else (0, 0)


def _decode(image: Image, data: bytes) -> tuple[Image, Size]:
    try:
        width, height = image.size
        _shrink_while_decoding(image)
        image.load()
        # Only now: asking a PNG for its EXIF decodes it, and a second `load` of a broken one no longer fails.
        orientation = _orientation(image)
        size = (height, width) if orientation >= 5 else (width, height)
        return _turned(_rgb(image), orientation), size
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("too-large", "decoding needs more memory than is free; use a smaller image") from None
    except Exception as error:  # hostile data makes decoders raise anything, from zlib.error to SyntaxError
        raise _broken(error, data) from None


def _broken(error: Exception, data: bytes) -> MediaError:
    text = str(error) or type(error).__name__
    early = isinstance(error, EOFError) or "truncated" in text.lower() or _cut_webp(data)
    return MediaError("truncated" if early else "corrupt", text.splitlines()[0][:300])


def _cut_webp(data: bytes) -> bool:
    """Return whether a WebP ends before its stated length; its decoder gives no reason for a failure."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def kind_of(data: bytes) -> str:
    """Guess the kind of a file that is not an image. Never quote its bytes: a stranger's list may name any file."""
    for start, kind in _OTHERS.items():
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        return "HEIC or a video"
    return "text" if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in data[:24]) else "data of another kind"


def _orientation(image: Image) -> int:
    """Return the EXIF orientation 1-8; a damaged EXIF block counts as upright, as the image itself is readable."""
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # as hostile as the rest of the file
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(image: Image, orientation: int) -> Image:
    how = _pillow().Transpose
    turns = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_270,
        7: how.TRANSVERSE,
        8: how.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _excess(image: Image) -> float:
    return math.sqrt(image.size[0] * image.size[1] / WORKING_PIXELS)


def _shrink_while_decoding(image: Image) -> None:
    """Set a JPEG to decode at 1/2, 1/4 or 1/8 of its size, for a fraction of the memory."""
    if image.format in ("JPEG", "MPO") and _excess(image) >= 2:
        factor = 2 ** min(3, int(math.log2(_excess(image))))
        image.draft(None, (image.size[0] // factor, image.size[1] // factor))


def _rgb(image: Image) -> Image:
    """Convert to RGB, alpha over white, at most WORKING_PIXELS; block by block, so that memory holds one copy."""
    factor, white = math.ceil(_excess(image)), _white_point(image)
    if factor <= 1:
        return _converted(image, white)
    small: Image = _pillow().new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for box in _blocks(image.size, factor):
        small.paste(_converted(image.crop(box), white).reduce(factor), (box[0] // factor, box[1] // factor))
    return small


def _blocks(size: Size, factor: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes that cover an image, each of at most _BLOCK groups of `factor` x `factor` pixels."""
    wide, high = (side * factor for side in _BLOCK)
    for top in range(0, size[1], high):
        for left in range(0, size[0], wide):
            yield left, top, min(size[0], left + wide), min(size[1], top + high)


def _converted(image: Image, white: float | None) -> Image:
    if white is not None:
        return _from_deep(image, white).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        backdrop: Image = _pillow().new("RGBA", image.size, "white")
        backdrop.alpha_composite(coloured)
        return backdrop.convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image, white: float) -> Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits; Pillow's own conversion clips at 255."""
    import numpy as np

    values = _deep_values(image)
    values *= 255 / white
    grey: Image = _pillow().fromarray(np.rint(values, out=values).astype(np.uint8))
    return grey


def _deep_values(image: Image) -> FloatArray:
    import numpy as np

    values = np.asarray(image).astype(np.float32)
    if isinstance(clear := image.info.get("transparency"), int):
        values[values == clear] = 65535
    return values


def _white_point(image: Image) -> float | None:
    """Return the grey value that means white; None for images of 8 bits a channel."""
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode not in ("I", "F"):
        return None
    import numpy as np

    blocks = (_deep_values(image.crop(box)) for box in _blocks(image.size, 1))
    lows, highs = zip(*((block.min(), block.max()) for block in blocks), strict=True)
    low, high = float(np.min(lows)), float(np.max(highs))
    if low >= 0:  # also False for NaN
        for white in (1, 255, 65535) if image.mode == "F" else (255, 65535):
            if high <= white:
                return white
    raise MediaError("unsupported", f"grey values {low:g} to {high:g} have no known white; convert to 8 bits")
