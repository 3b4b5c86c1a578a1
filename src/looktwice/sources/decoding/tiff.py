"""Read kinds of TIFF that Pillow opens with other values than libtiff gives, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

_BITS, _PHOTOMETRIC, _COLOURS, _SAMPLES = 258, 262, 320, 339
_SIGNED = 2


@cache
def teach_pillow() -> None:
    """Add kinds to Pillow's table that it can unpack but does not list."""
    from PIL.TiffImagePlugin import II, MM, OPEN_INFO

    for order in (II, MM):
        deep = "I;16" if order == II else "I;16B"
        for white_is_zero in (0, 1):
            OPEN_INFO.setdefault((order, white_is_zero, (1,), 1, (12,), ()), ("I;16", "I;12"))
            OPEN_INFO.setdefault((order, white_is_zero, (1,), 1, (16,), ()), (deep, deep))
        OPEN_INFO.setdefault((order, 1, (1,), 1, (8, 8), (1,)), ("La", "La"))


def tags_of(image: Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF; empty for other formats."""
    found: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return found


def check(image: Image) -> None:
    """Raise MediaError for signed samples of 8 and 16 bits, which have no known black and white.

    Signed samples of 32 bits are judged by their values: programs write small unsigned ones so.
    """
    tags = tags_of(image)
    if _SIGNED in _all(tags.get(_SAMPLES)) and max(_all(tags.get(_BITS)), default=1) < 32:
        raise MediaError("unsupported", "its samples are signed, so black is unknown; convert it to unsigned samples")


def mend_palette(image: Image) -> None:
    """Use a colour map of 8-bit values as it is: Pillow takes the upper half of 16 bits."""
    colours = _all(tags_of(image).get(_COLOURS))
    if image.mode.startswith("P") and colours and max(colours) < 256:
        from PIL import ImagePalette

        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def white_of(image: Image) -> int | None:
    """Return the value that means white in grey samples of 9 to 15 bits, None for all others."""
    bits = _all(tags_of(image).get(_BITS))
    return 2 ** bits[0] - 1 if image.mode.startswith("I;16") and len(bits) == 1 and 8 < bits[0] < 16 else None


def is_negative(image: Image) -> bool:
    """Return whether zero means white in deep grey samples: Pillow turns those of up to 8 bits only."""
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    return deep and tags_of(image).get(_PHOTOMETRIC) == 0


def _all(value: Any) -> tuple[int, ...]:
    found = value if isinstance(value, tuple) else () if value is None else (value,)
    return tuple(one for one in found if isinstance(one, int))
