"""A scorer whose scores can be worked out by hand and that counts what it is asked. Imports no torch: it is quick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from looktwice.score import Scorer
from looktwice.types import Item, PairScores


class Counting(Scorer):
    """p follows from the ids' lengths; every candidate it is asked for is counted. "bad" ones fail."""

    def __init__(self, **said: Any) -> None:
        self.said = {"revision": "r1", "prompt_hash": "h", "dtype": "float32", "device": "cpu", "path": "fast", **said}
        self.asked: list[str] = []

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.asked += [c.id for c in candidates]
        n = len(candidates)
        bad = np.array([c.id.startswith("bad") for c in candidates])
        p = np.where(bad, np.nan, [1 / (1 + len(query.id + c.id)) for c in candidates]).astype(np.float32)
        logits = np.stack([-p, p], axis=1)
        entropy = np.full(n, np.nan, dtype=np.float32)
        status = tuple("failed" if b else "ok" for b in bad)
        return PairScores(p, logits, entropy, p / 2, np.arange(n), status)

    def settings(self) -> Mapping[str, Any]:
        return self.said


def items(*names: str) -> list[Item]:
    return [Item(name, PICTURE, sha256=f"sha-{name}") for name in names]


PICTURE = Image.new("RGB", (4, 4))
QUERY = Item("q", PICTURE, sha256="sha-q")
