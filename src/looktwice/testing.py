"""Replace models by fakes with answers that can be worked out on paper, for tests, examples and plug-ins.

ColorEncoder       encodes an image as its mean color, and a text as the color that it names
BrightnessScorer   gives the brightness of a candidate as its p, and records the candidates that it scored
make_images        writes twelve flat images of four colors, three shades each

    >>> from looktwice import Item
    >>> from looktwice.testing import BrightnessScorer
    >>> BrightnessScorer().score(Item("q", text="red"), [Item("c", text="a text")]).p.tolist()
    [0.5]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from looktwice.score import Scorer
from looktwice.types import EncoderInfo, FloatArray, Item, PairScores

__all__ = ["COLORS", "SHADES", "BrightnessScorer", "ColorEncoder", "make_images"]

COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}
SHADES = (250, 150, 60)


def make_images(folder: Path) -> Path:
    """Write red-0.png to grey-2.png into `folder` and return it: 8 × 6 pixels of one color, 0 the brightest shade."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, channels in COLORS.items():
        for i, shade in enumerate(SHADES):
            red, green, blue = (shade * channel for channel in channels)
            Image.new("RGB", (8, 6), (red, green, blue)).save(folder / f"{name}-{i}.png")
    return folder


class ColorEncoder:
    """An encoder of images as mean red, green and blue, and of texts as the first color of COLORS that they name.

    Vectors have 8 numbers, the last five zero, and unit length; items without a color (black, another text) give NaN.
    """

    info = EncoderInfo("colors", "1", "mean", 8)

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Encode items as unit rows [n, 8]; see Encoder."""
        rows = np.zeros((len(items), self.info.dim), dtype=np.float32)
        for row, item in zip(rows, items, strict=True):
            row[:3] = self._color(item)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: FloatArray = np.where(norms > 0, rows / np.where(norms > 0, norms, 1), np.nan).astype(np.float32)
        return unit

    @staticmethod
    def _color(item: Item) -> Any:
        if item.image is not None:
            return np.asarray(item.image, dtype=np.float32).reshape(-1, 3).mean(0)
        return next((color for name, color in COLORS.items() if name in (item.text or "")), (0, 0, 0))


class BrightnessScorer(Scorer):
    """A scorer by the brightest channel of a candidate, from 0 to 1; ½ without an image. It ignores the query.

    A candidate darker than `broken_below` has the status "failed". `shown` lists the ids of the scored candidates.
    """

    def __init__(self, broken_below: float = 0.0) -> None:
        self.broken_below = broken_below
        self.shown: list[str] = []

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score candidates by brightness; see Scorer."""
        self.shown += [candidate.id for candidate in candidates]
        p = np.array([np.asarray(c.image).max() / 255 if c.image else 0.5 for c in candidates], dtype=np.float32)
        bad = p < self.broken_below
        unknown = np.full(len(p), np.nan, dtype=np.float32)
        return PairScores(
            p=np.where(bad, np.nan, p).astype(np.float32),
            label_logits=np.stack([1 - p, p], axis=1),
            entropy=unknown,
            off_mass=unknown.copy(),
            argmax_id=np.zeros(len(p), dtype=np.int64),
            status=tuple("failed" if b else "ok" for b in bad),
        )

    def settings(self) -> Mapping[str, Any]:
        """Return fixed settings; see Scorer."""
        return {"mllm": "brightness", "revision": "1", "prompt": "object", "prompt_hash": "0", "dtype": "float32"}
