"""Draw the pairs that a probe shows to a server: one of an item with itself, one of two that have nothing in common."""

from __future__ import annotations

from functools import cache

from looktwice.score.prompting.prompt import Prompt, showing
from looktwice.types import Item

SIDE = 224


@cache
def samples() -> tuple[Item, Item]:
    """Return a red square and a blue disc, each with its name as text."""
    from PIL import Image, ImageDraw

    square, disc = Image.new("RGB", (SIDE, SIDE), "white"), Image.new("RGB", (SIDE, SIDE), "black")
    ImageDraw.Draw(square).rectangle((SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4), fill="red")
    ImageDraw.Draw(disc).ellipse((SIDE // 3, SIDE // 3, 2 * SIDE // 3, 2 * SIDE // 3), fill="blue")
    return Item("square", square, "a red square"), Item("disc", disc, "a blue disc")


def square(side: int) -> Item:
    """Return a square of this many pixels, with a text."""
    from PIL import Image

    return Item(f"square-{side}", Image.new("RGB", (side, side), "white"), "a white square")


def sample_pair(prompt: Prompt, pair: tuple[int, int]) -> tuple[Item, Item]:
    """Return two samples by number, as query and candidate of a prompt."""
    query, candidate = (samples()[i] for i in pair)
    return showing(query, prompt, "query"), showing(candidate, prompt, "candidate")
