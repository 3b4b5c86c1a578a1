"""Damage images in many ways, each in three steps. This module knows pixels, no model."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Picture: TypeAlias = Image.Image
GREY = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Degradation:
    """A damage: `apply(image, strength, rng, others)` at each of `steps`; `unit` is the unit of a step."""

    steps: tuple[float, ...]
    unit: str
    apply: Callable[[Picture, float, Random, Sequence[Picture]], Picture]


def _brightness(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    return ImageEnhance.Brightness(image).enhance(strength)


def _contrast(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    return ImageEnhance.Contrast(image).enhance(strength)


def _greyscale(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    return ImageEnhance.Color(image).enhance(1 - strength)


def _blur(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    return image.filter(ImageFilter.GaussianBlur(strength * max(image.size)))


def _jpeg(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(strength))
    return Image.open(buffer).convert("RGB")


def _noise(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    pixels = np.asarray(image, dtype=np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, strength, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def _crop(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    w, h = (max(1, round(side * strength**0.5)) for side in image.size)
    x, y = rng.randint(0, image.width - w), rng.randint(0, image.height - h)
    return image.crop((x, y, x + w, y + h))


def _tiling(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    n = int(strength)
    tile = image.resize((max(1, image.width // n), max(1, image.height // n)))
    canvas = Image.new("RGB", (tile.width * n, tile.height * n))
    for i in range(n * n):
        canvas.paste(tile, (i % n * tile.width, i // n * tile.height))
    return canvas


def _rotation(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    turn = strength * rng.choice((-1, 1))
    return image.rotate(turn, Image.Resampling.BILINEAR, expand=True, fillcolor=GREY)


def _occlusion(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    w, h = (round(side * strength**0.5) for side in image.size)
    covered = image.copy()
    covered.paste(GREY, (x := rng.randint(0, image.width - w), y := rng.randint(0, image.height - h), x + w, y + h))
    return covered


def _clutter(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    """Make the image one cell of a mosaic; the other cells show other images."""
    columns = {1: (2, 1), 3: (2, 2), 8: (3, 3)}[int(strength)]
    cells: list[Picture] = [image, *rng.choices([*others] or [Image.new("RGB", (8, 8), GREY)], k=int(strength))]
    rng.shuffle(cells)
    w, h = max(1, image.width // columns[0]), max(1, image.height // columns[1])
    canvas = Image.new("RGB", (w * columns[0], h * columns[1]))
    for i, cell in enumerate(cells):
        canvas.paste(cell.resize((w, h)), (i % columns[0] * w, i // columns[0] * h))
    return canvas


def _small(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    w, h = (max(1, round(side * strength)) for side in image.size)
    canvas = Image.new("RGB", image.size, GREY)
    canvas.paste(image.resize((w, h)), (rng.randint(0, image.width - w), rng.randint(0, image.height - h)))
    return canvas


def _style(image: Picture, strength: float, rng: Random, others: Sequence[Picture]) -> Picture:
    """Turn the image into a drawing: flat colours of a few bits under its contours."""
    flat = ImageOps.posterize(image, int(strength))
    lines = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 if value > 48 else 0)
    flat.paste((0, 0, 0), (0, 0), lines)
    return flat


DEGRADATIONS: Mapping[str, Degradation] = MappingProxyType(
    {
        "brightness": Degradation((0.6, 0.35, 0.15), "factor", _brightness),
        "contrast": Degradation((0.6, 0.35, 0.15), "factor", _contrast),
        "blur": Degradation((0.01, 0.025, 0.05), "radius, share of the side", _blur),
        "jpeg": Degradation((30, 12, 4), "quality", _jpeg),
        "noise": Degradation((15, 40, 80), "standard deviation of 255", _noise),
        "crop": Degradation((0.7, 0.45, 0.25), "share kept", _crop),
        "tiling": Degradation((2, 3, 4), "copies a side", _tiling),
        "rotation": Degradation((20, 60, 120), "degrees", _rotation),
        "occlusion": Degradation((0.2, 0.4, 0.6), "share covered", _occlusion),
        "clutter": Degradation((1, 3, 8), "other images", _clutter),
        "small object": Degradation((0.6, 0.4, 0.25), "share of the side", _small),
        "greyscale": Degradation((0.5, 0.8, 1.0), "share of colour lost", _greyscale),
        "style": Degradation((4, 3, 2), "bits of colour, with contours", _style),
    }
)


def mirrored(image: Picture) -> Picture:
    """Exchange left and right."""
    return ImageOps.mirror(image)


def centre(image: Picture) -> Picture:
    """Return the middle 64 % of the image."""
    w, h = image.width // 10, image.height // 10
    return image.crop((w, h, image.width - w, image.height - h))


def normalised(image: Picture) -> Picture:
    """Stretch every channel to full contrast, by the 1st and 99th percentile."""
    return ImageOps.autocontrast(image, cutoff=1)
