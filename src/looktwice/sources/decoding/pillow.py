"""Decode an image with Pillow and its plug-ins: the first frame, upright, in sRGB."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.errors import MediaError
from looktwice.sources import formats, jpeg
from looktwice.sources.decoding import modes, png, tiff
from looktwice.sources.decoding.explain import explain, is_cut, is_whole
from looktwice.sources.prefetch import DecodingBudget
from looktwice.sources.reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

Size: TypeAlias = tuple[int, int]

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused before they are decoded (Pillow's own limit for a suspected attack)."""

WORKING_PIXELS = 2**25
"""Larger images are reduced by a whole factor while or after decoding: no model here reads 33 megapixels."""

DECODING_PIXELS = 2**27
"""Largest number of pixels in decoding at the same time: lossless WebP takes 16 bytes for each."""

MAX_SIDE, MAX_ASPECT = 100_000, 200
"""Limits of shape: models scale the shorter side to hundreds of pixels, so a line of pixels would become gigabytes."""

THREADS = 2
"""Threads of one decoder: one for each core of a large machine would take the address space of `child`."""

BUDGET = DecodingBudget(DECODING_PIXELS)


def decode(
    data: bytes, reading: Reading, max_pixels: int, apart: Callable[[], tuple[Image, Size]] | None = None
) -> tuple[Image, Size]:
    """Decode `data` to RGB and return it with the upright size that the file states.

    `apart()` does the same in a child process. It is called for a TIFF that libtiff must read, as libtiff writes its
    messages to the terminal.
    """
    scans = jpeg.count_scans(data) if data.startswith(formats.JPEG) else 0
    image = _open(data)
    for width, height in (image.size, _tile(image)):
        if width * height > max_pixels:
            raise MediaError("too-large", f"{width} x {height} pixels; the limit is {max_pixels:,}")
    if scans * image.width * image.height > jpeg.MOST_SCANNED_PIXELS:
        raise MediaError("too-large", f"{image.width} x {image.height} pixels in {scans} scans")
    demand_shape(image.size)
    tiff.check(image)
    if apart is not None and _needs_libtiff(image):
        return apart()
    return decode_open(image, data, reading)


def decode_open(image: Image, data: bytes, reading: Reading) -> tuple[Image, Size]:
    """Decode an image whose header was read and checked."""
    size = image.size
    factor = max(int(modes.excess(size, WORKING_PIXELS)), reading.factor(size))
    if image.format in ("JPEG", "MPO") and factor > 1:  # decoded at 1/2, 1/4 or 1/8 of its size
        power = 2 ** min(3, int(math.log2(factor)))
        image.draft(None, (size[0] // power, size[1] // power))
    with BUDGET.hold(image.width * image.height):
        return _decoded(image, data, size, reading)


def upright(image: Image, reading: Reading) -> Image:
    """Return an image from memory as its file would be decoded. Raises MediaError."""
    try:
        image.load()
        if not image.width * image.height:
            raise MediaError("empty", "the image has no pixels")
        demand_shape(image.size)
        return turned(_rgb(image, image.size, reading), _orientation(image))
    except MediaError:
        raise
    except Exception as error:  # an image opened lazily is only read now, and may be as hostile as any file
        raise broken(error, b"") from None


def demand_shape(size: Size) -> None:
    """Raise MediaError (`too-long`) for an image of a shape that models would enlarge without end."""
    short, long = sorted(size)
    if long > MAX_SIDE or long > MAX_ASPECT * max(1, short):
        limit = f"at most {MAX_SIDE:,} pixels a side, and {MAX_ASPECT} times the other side"
        raise MediaError("too-long", f"{size[0]} x {size[1]} pixels; {limit}")


@cache
def pillow() -> Any:
    """Return Pillow's module Image, hardened for untrusted files."""
    from PIL import AvifImagePlugin, Image

    # Pillow warns on standard error of damaged metadata and large images, without saying in which file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    tiff.teach_pillow()
    AvifImagePlugin.DEFAULT_MAX_THREADS = THREADS
    return Image


def _open(data: bytes) -> Image:
    images = pillow()
    try:
        image: Image = images.open(io.BytesIO(data), formats=known_formats(data))
        return image
    except images.UnidentifiedImageError:
        if found := explain(data):
            raise found from None
        if data.startswith(formats.TIFF):
            raise MediaError("unsupported", "this kind of TIFF is not supported; convert it to PNG") from None
        boxes = formats.box_kind(data)
        if data.startswith(formats.MAGIC) or boxes in ("AVIF", "HEIF") or (not boxes and is_cut(data)):
            reason = "corrupt" if is_whole(data) else "truncated"
            raise MediaError(reason, "the header of the image is incomplete or damaged") from None
        raise MediaError("not-an-image", f"it is {formats.kind_of(data)}") from None
    except (images.DecompressionBombError, images.DecompressionBombWarning) as error:
        raise MediaError("too-large", str(error)) from None
    except Exception as error:  # hostile headers make parsers raise anything, from struct.error to KeyError
        raise broken(error, data) from None


def known_formats(data: bytes) -> tuple[str, ...]:
    """Return Pillow's names of the formats that `data` may have; plug-ins are registered where they are needed."""
    if formats.box_kind(data) == "HEIF":
        _register_heif()
        return ("HEIF",)
    if formats.is_jxl(data):
        _register_jxl()
        return ("JXL",)
    return tuple(name for name in formats.FORMATS if name != "HEIF")


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=THREADS)


@cache
def _register_jxl() -> None:
    from pillow_jxl import JpegXLImagePlugin  # registers itself

    JpegXLImagePlugin.DECODE_THREADS = THREADS


def _tile(image: Image) -> Size:
    """Return the tile size of a TIFF, which is decoded tile by tile: a tile may claim to be larger than the image."""
    sizes = [tiff.tags_of(image).get(tag, 0) for tag in (322, 323)]
    return (sizes[0], sizes[1]) if all(isinstance(size, int) for size in sizes) else (0, 0)


def _needs_libtiff(image: Image) -> bool:
    return image.format == "TIFF" and any(tile[0] == "libtiff" for tile in getattr(image, "tile", ()))


def _decoded(image: Image, data: bytes, size: Size, reading: Reading) -> tuple[Image, Size]:
    try:
        tiff.mend_palette(image)
        image.load()
        # Only now: asking a PNG for its EXIF decodes it, and a second `load` of a broken one no longer fails.
        orientation = _orientation(image)
        if image.format == "PNG":
            image = png.mend_transparency(image, data)
        rgb = turned(_rgb(image, size, reading), orientation)
        return rgb, (size[1], size[0]) if orientation >= 5 else size
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("too-large", "decoding needs more memory than is free; use a smaller image") from None
    except Exception as error:  # hostile data makes decoders raise anything, from zlib.error to SyntaxError
        raise explain(data, tiff.tags_of(image) or None) or broken(error, data) from None


def _rgb(image: Image, size: Size, reading: Reading) -> Image:
    """Convert an image to RGB and reduce it; `size` is that of its file, of which it may be a half, quarter, eighth."""
    factor = _factor(image.size, reading)
    rgb = modes.to_rgb(image, factor, colours=reading.colours)
    return modes.fitted(rgb, size, factor * round(size[0] / image.width)) if reading.factor(size) > 1 else rgb


def _factor(size: Size, reading: Reading) -> int:
    return max(math.ceil(modes.excess(size, WORKING_PIXELS)), reading.factor(size))


def broken(error: Exception, data: bytes) -> MediaError:
    """Translate a decoder's error to `truncated` or `corrupt`."""
    text = str(error) or type(error).__name__
    early = isinstance(error, EOFError) or ("truncated" in text.lower() and not is_whole(data)) or is_cut(data)
    rare = text.lower().startswith("unsupported") or "not configured" in text
    reason = "truncated" if early else "unsupported" if rare else "corrupt"
    return MediaError(reason, text.splitlines()[0][:300])


def _orientation(image: Image) -> int:
    """Return the EXIF orientation 1-8; a damaged EXIF block counts as upright, as the image itself is readable.

    The boxes of AVIF and HEIF count once: their decoders turn by them, or put them in place of the EXIF orientation.
    """
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # as hostile as the rest of the file
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(image: Image, orientation: int) -> Image:
    """Return an image turned upright by its EXIF orientation."""
    how = pillow().Transpose
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
