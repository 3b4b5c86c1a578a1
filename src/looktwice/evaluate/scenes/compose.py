"""Compose images from cut-outs: grounds, clutter, occlusion, damage. Everything follows from one `Random`.

A scene keeps an account of what it shows, so that labels never have to be guessed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from looktwice.evaluate.scenes.cutouts import Cutout, Cutouts

COLOURS = (
    (214, 48, 49), (240, 147, 43), (249, 214, 76), (56, 158, 84), (52, 108, 214), (132, 70, 180), (242, 150, 190),
    (128, 84, 52), (248, 248, 248), (136, 138, 142), (24, 24, 28),
)  # fmt: skip
Colour: TypeAlias = tuple[int, int, int]
TRIES = 6


@dataclass(frozen=True, slots=True)
class PlacedCutout:
    """One drawing in a scene: its longer side as a share of the frame's, and how much of it nothing covers.

    `visible` is a share of the part inside the frame; parts outside the frame are ignored.
    """

    cutout: Cutout
    scale: float
    visible: float


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and what it shows, from back to front."""

    image: Image.Image
    placed: tuple[PlacedCutout, ...]


def portrait(cutout: Cutout, size: int, rng: Random, cutouts: Cutouts, grounds: Sequence[Cutout]) -> Scene:
    """Compose one large object, as a person would photograph a query."""
    canvas = _ground(size, rng, cutouts, grounds)
    scale = rng.uniform(0.6, 0.92)
    place(canvas, cutouts.image(cutout.id), scale, rng.uniform(-15, 15), rng, slack=0.0)
    return Scene(damage(canvas, rng, 0.7), (PlacedCutout(cutout, scale, 1.0),))


def clutter(
    target: Cutout, others: Sequence[Cutout], size: int, rng: Random, cutouts: Cutouts, grounds: Sequence[Cutout]
) -> Scene:
    """Compose a scene of `target` among `others`, all turned, small or covered to a random degree.

    The target is placed again until enough of it is visible. After TRIES tries it stays as it is, and the account
    records its visible share.
    """
    hard = rng.uniform(0.1, 0.9)
    for _ in range(TRIES):
        canvas = _ground(size, rng, cutouts, grounds)
        shown = [target, *others]
        rng.shuffle(shown)
        scales = [_scale(cutout is target, len(shown), hard, rng) for cutout in shown]
        masks = [
            place(canvas, cutouts.image(c.id), scale, rng.uniform(-1, 1) * (10 + 35 * hard), rng, slack=0.15 * hard)
            for c, scale in zip(shown, scales, strict=True)
        ]
        shares = _visible(masks)
        if shares[shown.index(target)] >= 0.8 - 0.4 * hard:
            break
    placed = tuple(PlacedCutout(*row) for row in zip(shown, scales, shares, strict=True))
    return Scene(damage(canvas, rng, 0.5 + 0.5 * hard), placed)


def _scale(wanted: bool, shown: int, hard: float, rng: Random) -> float:
    largest = 0.9 - 0.35 * hard if shown == 1 else 0.75 - 0.25 * hard
    smallest = 0.55 - 0.37 * hard if wanted else 0.30 - 0.20 * hard
    return rng.uniform(min(smallest, largest), largest)


def _visible(masks: Sequence[np.ndarray]) -> list[float]:
    """Return the share of each mask, which is the part inside the frame, that no later one covers."""
    shares = []
    for i, mask in enumerate(masks):
        over = np.any(masks[i + 1 :], axis=0) if i + 1 < len(masks) else np.zeros_like(mask)
        shares.append(float((mask & ~over).sum()) / max(1, int(mask.sum())))
    return shares


def _ground(size: int, rng: Random, cutouts: Cutouts, grounds: Sequence[Cutout]) -> Image.Image:
    """Return a background frame: flat, gradient, noise, stripes or a blurred crop of another drawing."""
    first, second, kind = _colour(rng), _colour(rng), rng.random()
    flat = Image.new("RGB", (size, size), first)
    if kind < 0.35:
        return flat
    if kind < 0.55:
        ramp = Image.linear_gradient("L").resize((size, size)).rotate(rng.choice((0, 90, 180, 270)))
        return Image.composite(flat, Image.new("RGB", (size, size), second), ramp)
    if kind < 0.70:
        return noise(size, first, rng)
    if kind < 0.85:
        return stripes(flat, second, rng)
    art = cutouts.image(rng.choice(grounds).id).resize((2 * size, 2 * size))
    canvas = Image.new("RGB", (2 * size, 2 * size), first)
    canvas.paste(art, (0, 0), art)
    x, y = rng.randint(0, size), rng.randint(0, size)
    return canvas.crop((x, y, x + size, y + size)).filter(ImageFilter.GaussianBlur(size / 32))


def _colour(rng: Random) -> Colour:
    r, g, b = (max(0, min(255, value + rng.randint(-14, 14))) for value in rng.choice(COLOURS))
    return r, g, b


def noise(size: int, colour: Colour, rng: Random) -> Image.Image:
    """Return a frame of fine or coarse noise around a colour."""
    cells = rng.choice((4, 8, 24, size))
    values = np.random.default_rng(rng.getrandbits(32)).normal(0, 28, (cells, cells, 3)) + np.array(colour)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR)


def stripes(canvas: Image.Image, colour: Colour, rng: Random) -> Image.Image:
    """Draw stripes of a colour on a frame, upright or level."""
    size = canvas.width
    draw, step = ImageDraw.Draw(canvas), rng.randint(max(3, size // 16), size // 4)
    for x in range(0, size, 2 * step):
        draw.rectangle((x, 0, x + step - 1, size), fill=colour)
    return canvas.rotate(rng.choice((0, 90)))


def place(canvas: Image.Image, art: Image.Image, scale: float, turn: float, rng: Random, slack: float) -> np.ndarray:
    """Paste `art`, up to `slack` of it outside the frame, and return its opaque pixels as bool [size, size]."""
    size = canvas.width
    factor = scale * size / max(art.size)
    art = art.resize((max(2, round(art.width * factor)), max(2, round(art.height * factor))), Image.Resampling.BILINEAR)
    art = art.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    x, y = (_position(side, size, slack, rng) for side in art.size)
    canvas.paste(art, (x, y), art)
    mask = Image.new("L", canvas.size)
    mask.paste(art.getchannel("A"), (x, y))
    return np.asarray(mask) > 96


def _position(side: int, size: int, slack: float, rng: Random) -> int:
    low = round(-slack * side)
    return rng.randint(low, max(low, size - round((1 - slack) * side)))


def damage(image: Image.Image, rng: Random, strength: float) -> Image.Image:
    """Change brightness, contrast, colour, blur and JPEG quality, each at random and not always."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.3:
            image = enhancer(image).enhance(rng.uniform(1 - 0.4 * strength, 1 + 0.4 * strength))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0) * strength * image.width / 96))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(35, 90))
        image = Image.open(buffer).convert("RGB")
    return image
