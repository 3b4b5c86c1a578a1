"""Draw a sprite as another hand might have: other colours, proportions, outlines, fewer shades.

What things are called is learnt from few artists; without this, their style is learnt by heart.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

DARK, LIGHT = (32, 28, 36), (250, 250, 248)


def restyled(art: Image.Image, rng: Random) -> Image.Image:
    """Two or three changes of an RGBA drawing; what it shows and where it is opaque stay about the same."""
    for change in rng.sample(CHANGES, rng.choice((2, 2, 3))):
        art = change(art, rng)
    return art


def with_colours(art: Image.Image, colours: Image.Image) -> Image.Image:
    """These colours inside the drawing's own outline."""
    colours = colours.convert("RGBA")
    colours.putalpha(art.getchannel("A"))
    return colours


def turn_hues(art: Image.Image, rng: Random) -> Image.Image:
    hue, *rest = art.convert("RGB").convert("HSV").split()
    by = rng.randint(0, 255) if rng.random() < 0.4 else rng.randint(-24, 24)
    return with_colours(art, Image.merge("HSV", [hue.point(lambda h: (h + by) % 256), *rest]).convert("RGB"))


def saturate(art: Image.Image, rng: Random) -> Image.Image:
    lit = ImageEnhance.Brightness(art.convert("RGB")).enhance(rng.uniform(0.75, 1.3))
    return with_colours(art, ImageEnhance.Color(lit).enhance(rng.choice((0.0, 0.4, 1.6, 2.2))))


def fewer_shades(art: Image.Image, rng: Random) -> Image.Image:
    on_ground = Image.new("RGB", art.size, LIGHT)
    on_ground.paste(art, (0, 0), art)
    return with_colours(art, on_ground.quantize(rng.randint(3, 6)).convert("RGB"))


def mirror(art: Image.Image, rng: Random) -> Image.Image:
    return ImageOps.mirror(art)


def stretch(art: Image.Image, rng: Random) -> Image.Image:
    """Other proportions, leaning a little."""
    lean, by = rng.uniform(-0.2, 0.2), rng.uniform(0.8, 1.25)
    size = (max(2, round(art.width * by * (1 + abs(lean)))), art.height)
    start = max(0.0, lean) * art.width
    return art.transform(size, Image.Transform.AFFINE, (1 / by, lean, -start / by, 0, 1, 0), Image.Resampling.BILINEAR)


def outline(art: Image.Image, rng: Random) -> Image.Image:
    """A dark or light line around it."""
    width = rng.choice((3, 5, 7))
    framed = ImageOps.expand(art, width // 2 + 1, (0, 0, 0, 0))
    grown = framed.getchannel("A").filter(ImageFilter.MaxFilter(width))
    line = Image.new("RGBA", framed.size, (*rng.choice((DARK, DARK, LIGHT)), 0))
    line.putalpha(grown)
    return Image.alpha_composite(line, framed)


def lines_only(art: Image.Image, rng: Random) -> Image.Image:
    """Its edges, dark on one light colour."""
    grey = art.convert("RGB").convert("L")
    edges = ImageOps.autocontrast(grey.filter(ImageFilter.FIND_EDGES).filter(ImageFilter.GaussianBlur(0.6)))
    fill = tuple(rng.randint(170, 255) for _ in range(3))
    return with_colours(art, ImageOps.colorize(edges, fill, DARK))


def shade(art: Image.Image, rng: Random) -> Image.Image:
    """Lit from one side."""
    ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(art.size)
    light = ramp.point(lambda x: 150 + x * 105 // 255).convert("RGB")
    return with_colours(art, ImageChops.multiply(art.convert("RGB"), light))


CHANGES: list[Callable[[Image.Image, Random], Image.Image]] = [
    turn_hues, saturate, fewer_shades, mirror, stretch, outline, lines_only, shade,
]  # fmt: skip
