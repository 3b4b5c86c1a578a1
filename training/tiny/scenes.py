"""Compose pictures from sprites: grounds, clutter, occlusion, damage. Everything follows from one `Random`.

A scene keeps an account of what it shows, so that labels never have to be guessed: which sprites, how large, how much
of each is still visible.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageFilter
from restyle import restyled

from looktwice.evaluate.scenes.compose import damage, noise, place, stripes

COLOURS = {
    "red": (214, 48, 49), "orange": (240, 147, 43), "yellow": (249, 214, 76), "green": (56, 158, 84),
    "blue": (52, 108, 214), "purple": (132, 70, 180), "pink": (242, 150, 190), "brown": (128, 84, 52),
    "white": (248, 248, 248), "grey": (136, 138, 142), "black": (24, 24, 28),
}  # fmt: skip


VISIBLE = 0.35  # below this share of its pixels an object counts as neither shown nor absent
GRID = 5  # tiny-vl sees a picture as 5 x 5 visual tokens


@dataclass(frozen=True)
class Sprite:
    row: int
    object: str
    label: str
    words: tuple[str, ...]
    group: str
    vendor: str


@dataclass(frozen=True)
class Placed:
    sprite: Sprite
    scale: float  # longer side, as a share of the frame's side
    visible: float  # share of its own opaque pixels that nothing covers
    cover: np.ndarray  # [GRID, GRID] share of each cell that it fills, visibly


@dataclass(frozen=True)
class Scene:
    image: Image.Image
    placed: tuple[Placed, ...]
    ground: str | None  # colour name of a flat ground, else None

    def shows(self, sprite: Sprite, by_name: bool, visible: float = VISIBLE) -> bool:
        """The same drawing (or, by name, the same thing by any vendor), with this much of its pixels uncovered."""
        placed = (p for p in self.placed if p.visible >= visible)
        return any(p.sprite.object == sprite.object if by_name else p.sprite.row == sprite.row for p in placed)


class Sprites:
    """All drawings of one split."""

    def __init__(self, data: Path, split: str) -> None:
        archive = np.load(data / "sprites.npz")
        self._pixels, self._offsets, self._shapes = archive["pixels"], archive["offsets"], archive["shapes"]
        self.drawings = len(self._shapes)
        self.all: list[Sprite] = []
        for row, line in enumerate((data / "sprites.jsonl").read_text().splitlines()):
            r = json.loads(line)
            if r["split"] == split:
                self.all.append(Sprite(row, r["object"], r["label"], tuple(r["words"]), r["group"], r["vendor"]))
        self.by_group: dict[str, list[Sprite]] = defaultdict(list)
        self.by_object: dict[str, list[Sprite]] = defaultdict(list)
        for sprite in self.all:
            self.by_group[sprite.group].append(sprite)
            self.by_object[sprite.object].append(sprite)
        often = {o for o, them in self.by_object.items() if len({s.vendor for s in them}) > 1}
        self.drawn_often = [s for s in self.all if s.object in often] or self.all

    @lru_cache(maxsize=4096)  # noqa: B019  (one instance per process)
    def picture(self, row: int) -> Image.Image:
        h, w = self._shapes[row]
        return Image.fromarray(self._pixels[self._offsets[row] : self._offsets[row + 1]].reshape(h, w, 4), "RGBA")

    def lookalike(self, sprite: Sprite, rng: Random) -> Sprite:
        """Another object of the same group, often of the same colour; any object where the group has no other."""
        others = [s for s in self.by_group[sprite.group] if s.object != sprite.object]
        return rng.choice(others) if others else rng.choice(self.all)


def flat_colour(rng: Random) -> tuple[str, tuple[int, int, int]]:
    name = rng.choice(list(COLOURS))
    r, g, b = COLOURS[name]
    return name, tuple(max(0, min(255, c + rng.randint(-14, 14))) for c in (r, g, b))  # type: ignore[return-value]


def coverage(mask: np.ndarray) -> np.ndarray:
    """[size, size] bool -> [GRID, GRID] share of each cell."""
    side = mask.shape[0] // GRID
    cells = mask[: side * GRID, : side * GRID].reshape(GRID, side, GRID, side)
    return np.asarray(cells.mean((1, 3)), dtype=np.float32)


def ground(size: int, rng: Random, sprites: Sprites, plain: float = 0.0) -> tuple[Image.Image, str | None]:
    """A frame to put things on: flat, gradient, noise, stripes or a blurred crop of another drawing."""
    name, first = flat_colour(rng)
    if rng.random() < plain:
        return Image.new("RGB", (size, size), COLOURS["grey"]), "grey"
    kind = rng.random()
    if kind < 0.35:
        return Image.new("RGB", (size, size), first), name
    _, second = flat_colour(rng)
    if kind < 0.55:
        ramp = Image.linear_gradient("L").resize((size, size)).rotate(rng.choice((0, 90, 180, 270)))
        return Image.composite(
            Image.new("RGB", (size, size), first), Image.new("RGB", (size, size), second), ramp
        ), None
    if kind < 0.70:
        return noise(size, first, rng), None
    if kind < 0.85:
        return stripes(Image.new("RGB", (size, size), first), second, rng), None
    crop = sprites.picture(rng.choice(sprites.all).row).resize((2 * size, 2 * size))
    canvas = Image.new("RGB", (2 * size, 2 * size), first)
    canvas.paste(crop, (0, 0), crop)
    x, y = rng.randint(0, size), rng.randint(0, size)
    return canvas.crop((x, y, x + size, y + size)).filter(ImageFilter.GaussianBlur(size / 32)), None


def drawing(sprite: Sprite, sprites: Sprites, rng: Random, restyle: float) -> Image.Image:
    """The sprite; this share of them as another hand might have drawn it."""
    art = sprites.picture(sprite.row)
    return restyled(art, rng) if restyle and rng.random() < restyle else art


def portrait(
    sprite: Sprite, size: int, rng: Random, sprites: Sprites, plain: float = 0.0, restyle: float = 0.0
) -> Scene:
    """One large object: what a person would hand in as a query."""
    canvas, name = ground(size, rng, sprites, plain)
    scale = rng.uniform(0.6, 0.92)
    mask = place(canvas, drawing(sprite, sprites, rng, restyle), scale, rng.uniform(-15, 15), rng, slack=0.0)
    return Scene(damage(canvas, rng, 0.7), (Placed(sprite, scale, 1.0, coverage(mask)),), name)


def clutter(
    targets: list[Sprite],
    others: int,
    size: int,
    rng: Random,
    sprites: Sprites,
    hard: float,
    plain: float = 0.0,
    restyle: float = 0.0,
) -> Scene:
    """A scene that shows `targets` among `others` further objects. `hard` in [0, 1]: smaller, turned, occluded."""
    for _ in range(6):
        canvas, name = ground(size, rng, sprites, plain)
        shown = list(targets)
        for _ in range(others):
            near = rng.random() < 0.3 and bool(targets)
            shown.append(sprites.lookalike(rng.choice(targets), rng) if near else rng.choice(sprites.all))
        rng.shuffle(shown)
        largest = 0.9 - 0.35 * hard if len(shown) == 1 else 0.75 - 0.25 * hard
        scales, masks = [], []
        for sprite in shown:
            wanted = sprite in targets
            smallest = (0.55 - 0.37 * hard) if wanted else (0.30 - 0.20 * hard)
            scales.append(rng.uniform(min(smallest, largest), largest))
            turn = rng.uniform(-1, 1) * (10 + 35 * hard)
            slack = 0.0 if rng.random() > 0.3 * hard else 0.15
            masks.append(place(canvas, drawing(sprite, sprites, rng, restyle), scales[-1], turn, rng, slack))
        visible = [m & ~np.any(masks[i + 1 :], axis=0) if i + 1 < len(masks) else m for i, m in enumerate(masks)]
        shares = [float(v.sum()) / max(1, int(m.sum())) for v, m in zip(visible, masks, strict=True)]
        enough = 0.8 - 0.4 * hard
        if all(share >= enough for share, s in zip(shares, shown, strict=True) if s in targets):
            break
    account = zip(shown, scales, shares, visible, strict=True)
    placed = tuple(Placed(sprite, scale, share, coverage(mask)) for sprite, scale, share, mask in account)
    return Scene(damage(canvas, rng, 0.5 + 0.5 * hard), placed, name)
