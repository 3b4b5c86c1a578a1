"""Turn colours of an embedded ICC profile to sRGB (Pillow's ImageCms: relative colorimetric, black point adapted)."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 2**24
"""Larger profiles are ignored; printers' profiles have up to a few megabytes."""

NEAR = 1
"""A profile that moves no colour by more than this is sRGB under another name, and moves none."""

_STEPS = 9


def to_srgb(image: Image, profile: object) -> Image:
    """Return an RGB or grey image in sRGB, mode RGB. A profile of another colour space or a broken one is ignored."""
    if not _usable(profile):
        return image.convert("RGB")
    change = _transform(profile, image.mode)
    return image.convert("RGB") if change is None else _applied(change, image)


def cmyk_to_srgb(image: Image, profile: object) -> Image | None:
    """Return a CMYK image in sRGB by its profile; None without a usable one."""
    change = _transform(profile, "CMYK") if _usable(profile) else None
    return None if change is None else _applied(change, image)


def lab_to_srgb(image: Image) -> Image:
    """Return an image in CIE L*a*b* (D50) in sRGB."""
    return _applied(_lab(), image)


def _usable(profile: object) -> bool:
    return isinstance(profile, bytes) and 128 <= len(profile) <= MOST_BYTES


def _applied(change: Any, image: Image) -> Image:
    from PIL import ImageCms

    changed: Image | None = ImageCms.applyTransform(image, change)
    assert changed is not None  # only with inPlace
    return changed


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform from a profile to sRGB; None if it changes nothing or cannot be used."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        change = ImageCms.buildTransform(opened, _srgb(), mode, "RGB", *_how())
        return None if mode != "CMYK" and _is_near(change, mode) else change
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


@lru_cache(maxsize=1)
def _lab() -> Any:
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB", *_how())


def _how() -> tuple[Any, Any]:
    from PIL import ImageCms

    return ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION


def _is_near(change: Any, mode: str) -> bool:
    """Return whether a transform leaves a grid of colours where it is."""
    import numpy as np
    from PIL import Image

    levels = np.linspace(0, 255, 256 if mode == "L" else _STEPS).astype(np.uint8)
    grid = levels if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    before = Image.fromarray(grid[None])
    moved = np.asarray(_applied(change, before)).astype(int) - np.asarray(before.convert("RGB")).astype(int)
    return int(np.abs(moved).max()) <= NEAR
