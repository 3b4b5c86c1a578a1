"""Stand-ins whose answers can be worked out on paper.

Colours   encoder: the mean colour of a picture, or the colour that a text names
Brighter  scorer: p is how bright the candidate is; counts what it was shown
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import looktwice
from looktwice.score import Scorer
from looktwice.types import EncoderInfo, Item, PairScores

NAMES = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}
SHADES = (250, 150, 60)
INSTALLED = Path(looktwice.__file__).parents[1]  # for PYTHONPATH of child processes: src/, or site-packages


def make_pictures(folder: Path) -> Path:
    """red-0.png … grey-2.png: flat, 0 the brightest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, channels in NAMES.items():
        for i, shade in enumerate(SHADES):
            Image.new("RGB", (8, 6), tuple(shade * c for c in channels)).save(folder / f"{name}-{i}.png")
    return folder


class Colours:
    """8 numbers of which the first three are the mean colour, unit length; a text is the colour it names first."""

    info = EncoderInfo("colours", "1", "mean", 8)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        rows = np.zeros((len(items), 8), dtype=np.float32)
        for row, item in zip(rows, items, strict=True):
            row[:3] = self._colour(item)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.where(norms > 0, rows / np.where(norms > 0, norms, 1), np.nan)

    @staticmethod
    def _colour(item: Item) -> Any:
        if item.image is not None:
            return np.asarray(item.image, dtype=np.float32).reshape(-1, 3).mean(0)
        return next((c for name, c in NAMES.items() if name in (item.text or "")), (0, 0, 0))


class Brighter(Scorer):
    """p = brightness of the candidate in [0, 1]; a candidate darker than `broken_below` counts as failed."""

    def __init__(self, broken_below: float = 0.0) -> None:
        self.broken_below = broken_below
        self.shown: list[str] = []

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.shown += [c.id for c in candidates]
        p = np.array([np.asarray(c.image).max() / 255 if c.image else 0.5 for c in candidates], dtype=np.float32)
        bad = p < self.broken_below
        nan = np.full(len(p), np.nan, dtype=np.float32)
        return PairScores(
            p=np.where(bad, np.nan, p).astype(np.float32),
            label_logits=np.stack([1 - p, p], axis=1),
            entropy=nan,
            off_mass=nan.copy(),
            argmax_id=np.zeros(len(p), dtype=np.int64),
            status=tuple("failed" if b else "ok" for b in bad),
        )

    def settings(self) -> Mapping[str, Any]:
        return {"mllm": "brighter", "revision": "1", "prompt": "object", "prompt_hash": "0", "dtype": "float32"}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of random colours."""
    rng = np.random.default_rng((seed, width, height))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
