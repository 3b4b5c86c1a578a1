"""An encoder and a scorer that need no weights: colours of a grid, and how much of a colour two pictures share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from looktwice.score import Scorer
from looktwice.types import EncoderInfo, Item, PairScores

GRID = 4


class Colours:
    """A picture is the colours of a 4 × 4 grid; a text is a direction that follows from its hash."""

    info = EncoderInfo("colours", "1", "grid 4", GRID * GRID * 3)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        rows = np.stack([self._one(item) for item in items]) if items else np.zeros((0, self.info.dim))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _one(self, item: Item) -> np.ndarray:
        if item.image is None:
            seed = int(hashlib.sha256((item.text or "").encode()).hexdigest()[:8], 16)
            return np.random.default_rng(seed).normal(size=self.info.dim)
        return np.asarray(item.image.convert("RGB").resize((GRID, GRID)), dtype=float).ravel() + 1.0


class Histograms(Scorer):
    """p grows with the overlap of two colour histograms; texts get one half. Counts what it was asked."""

    def __init__(self, revision: str = "1", fail_after: int | None = None) -> None:
        self.revision, self.pairs, self.fail_after = revision, 0, fail_after

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.pairs += len(candidates)
        if self.fail_after is not None and self.pairs > self.fail_after:
            raise KeyboardInterrupt
        p = np.array([self._one(query, candidate) for candidate in candidates], dtype=np.float32)
        n = len(p)
        nan = np.full(n, np.nan, np.float32)
        return PairScores(p, np.zeros((n, 2), np.float32), nan, nan, np.zeros(n, np.int64), ("ok",) * n)

    def _one(self, query: Item, candidate: Item) -> float:
        if query.image is None or candidate.image is None:
            return 0.5
        a, b = (_histogram(item.image) for item in (query, candidate))
        return float(np.minimum(a, b).sum())

    def settings(self) -> dict[str, object]:
        return {"mllm": "histograms", "revision": self.revision, "prompt": "none", "prompt_hash": "0"}


def _histogram(image: object) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB").resize((32, 32))) // 64  # type: ignore[attr-defined]
    counts = np.bincount((pixels[..., 0] * 16 + pixels[..., 1] * 4 + pixels[..., 2]).ravel(), minlength=64)
    return counts / counts.sum()


class Silent:
    """A progress bar that remembers where it was."""

    def __init__(self) -> None:
        self.done = 0

    def at(self, done: int) -> None:
        self.done = done

    def total(self, n: int) -> None:
        pass


def coarse_noise(seed: int) -> Image.Image:
    """An image of 32 x 32 pixels whose 4 x 4 colours are drawn by lot."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 4, 3)).astype(np.uint8)).resize((32, 32))
