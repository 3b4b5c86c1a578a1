"""Rows with vectors that one can reason about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from looktwice.store import Row
from looktwice.types import EncoderInfo

ENCODER = EncoderInfo("toy", "1", "none", 8)


def row(
    item_id: str, vector: Iterable[float] = (1, 0, 0, 0, 0, 0, 0, 0), sha256: str | None = None, **more: Any
) -> Row:
    values: dict[str, Any] = {
        "uri": f"file:///pictures/{len(item_id)}",
        "sha256": sha256 or f"{abs(hash(item_id)):064x}",
        "width": 4,
        "height": 3,
        "text": None,
        "metadata": {},
        **more,
    }
    return Row(id=item_id, vector=np.asarray(list(vector), np.float32), **values)


def random_rows(count: int, dim: int = 8, seed: int = 0, start: int = 0) -> list[Row]:
    """Rows 00000, 00001, … with random directions and metadata {"year": number}."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return [
        row(f"{number:05}", vector, f"{number:064x}", metadata={"year": number})
        for number, vector in enumerate(vectors, start)
    ]


def token_set(**more: object) -> dict[str, object]:
    """An entry of a manifest's token sets."""
    made_with = dict.fromkeys(("tokens_key", "mllm", "revision", "preprocessing", "codec"), "x")
    return {**made_with, "codebook_sha256": None, "width": 8, "levels": 0, **more}
