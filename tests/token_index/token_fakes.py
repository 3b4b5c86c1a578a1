"""A vision tower and a scorer that a person can compute, and a small table of pictures to use them on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from looktwice.errors import ModelError
from looktwice.score import Scorer
from looktwice.sources import file_uri
from looktwice.store import Row, Table
from looktwice.types import Block, EncoderInfo, Item, PairScores, TokensInfo, VisualTokens

WIDTH = 16


@dataclass
class ToyScorer(Scorer):
    """One token per 8 × 8 pixels: its mean colour through a fixed matrix; p = 1 / (1 + distance of the means).

    `refuses` names pictures that the tower cannot use; `looked` lists ids in the order in which they were looked at.
    """

    info: TokensInfo = field(default_factory=lambda: TokensInfo("toy", "1", "patch8", WIDTH, 0))
    refuses: frozenset[str] = frozenset()
    looked: list[str] = field(default_factory=list)

    def tokens_info(self) -> TokensInfo:
        return self.info

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        for item in items:
            if item.id in self.refuses:
                raise ModelError(f"The picture {item.id!r} cannot be prepared.")
        return [self._look(item) for item in items]

    def _look(self, item: Item) -> VisualTokens:
        if item.tokens is not None:
            return item.tokens
        self.looked.append(item.id)
        w, h = max(1, item.image.width // 8), max(1, item.image.height // 8)
        pixels = torch.from_numpy(np.asarray(item.image.resize((w, h), Image.Resampling.BOX), np.float32) / 255)
        features = (pixels.reshape(-1, 3) - 0.5) @ torch.sin(torch.arange(3.0 * self.info.width)).view(3, -1)
        levels = torch.stack([features * (n + 2) for n in range(self.info.levels)]) if self.info.levels else None
        return VisualTokens(features, levels, (Block("global", h, w),))

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        (asked,) = self.visual_tokens([query])
        means = torch.stack([t.features.float().mean(0) for t in self.visual_tokens(candidates)])
        p = (1 / (1 + (means - asked.features.float().mean(0)).norm(dim=1))).numpy()
        n = len(p)
        blank = np.zeros(n, np.float32)
        return PairScores(p, np.zeros((n, 2), np.float32), blank, blank, np.zeros(n, np.int64), ("ok",) * n)

    def tokens(self) -> ToyScorer:
        return self

    def placement(self) -> tuple[str, None]:
        return "cpu", None

    def settings(self) -> dict[str, str]:
        return {"mllm": "toy"}

    def with_levels(self, levels: int) -> ToyScorer:
        return ToyScorer(replace(self.info, levels=levels))


class NoTokens(Scorer):
    """Reads images only, as a model on the reference path does."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        raise NotImplementedError


def draw(folder: Path, name: str, seed: int) -> Path:
    """A picture of coarse noise, 40 to 80 px a side."""
    rng = np.random.default_rng(seed)
    w, h = rng.integers(5, 11, 2) * 8
    path = folder / name
    Image.fromarray(rng.integers(0, 255, (h // 8, w // 8, 3), dtype=np.uint8)).resize((w, h), 0).save(path)
    return path


def row_of(path: Path, id_: str | None = None) -> Row:
    data = path.read_bytes()
    with Image.open(path) as image:
        width, height = image.size
        vector = np.asarray(image.resize((2, 2)), np.float32).ravel()[:8] + 1
    digest = hashlib.sha256(data).hexdigest()
    return Row(id_ or path.name, file_uri(path), digest, width, height, None, {}, vector / np.linalg.norm(vector))


def make_table(folder: Path, count: int = 12) -> Table:
    """A table `t.lt` of `count` pictures and one text."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    rows = [row_of(draw(pictures, f"p{n:03}.png", n)) for n in range(count)]
    text = Row("text", "", hashlib.sha256(b"words").hexdigest(), 0, 0, "words", {}, np.eye(8, dtype=np.float32)[0])
    table = Table.create(folder / "t.lt", EncoderInfo("toy", "1", "none", 8))
    table.add([*rows, text])
    return table
