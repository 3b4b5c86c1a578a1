"""Orientation from EXIF and from the boxes of AVIF and HEIF, each once."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from looktwice.sources import images

pillow_heif.register_heif_opener()

UPRIGHT = np.zeros((32, 48, 3), np.uint8)
UPRIGHT[:8, :8] = 255


def stored(orientation: int) -> np.ndarray:
    """The pixels that a camera held that way writes."""
    turns = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.swapaxes(0, 1),
        6: np.rot90(UPRIGHT, 1),
        7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(UPRIGHT, -1),
    }
    return np.ascontiguousarray(turns[orientation])


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def saved(kind: str, orientation: int) -> bytes:
    image = Image.fromarray(stored(orientation))
    image.info["exif"] = exif(orientation)  # of which the writers of AVIF and HEIF make boxes
    out = io.BytesIO()
    image.save(out, kind, quality=100, exif=exif(orientation))
    return out.getvalue()


def is_upright(data: bytes) -> bool:
    image, size = images.load(data)
    if not image.size == size == (48, 32):
        return False
    return bool(np.abs(np.asarray(image).astype(int) - UPRIGHT).max() < 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG", "WEBP", "TIFF"])
def test_every_format_is_turned_once(kind: str, orientation: int) -> None:
    assert is_upright(saved(kind, orientation))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_phone_writes_both(orientation: int) -> None:
    """HEIC with boxes whose EXIF has the orientation too: the boxes count."""
    data = saved("HEIF", orientation)
    assert b"irot" in data or b"imir" in data
    assert exif(orientation)[6:] in data
    assert is_upright(data)
