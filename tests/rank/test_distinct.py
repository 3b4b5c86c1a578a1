"""Near-duplicates among vectors, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from looktwice.rank import distinct
from looktwice.rank.distinct import fold


def plainly(vectors: np.ndarray, least: float) -> list[list[int]]:
    """What `fold` promises, one pair at a time."""
    groups: list[list[int]] = []
    for row, vector in enumerate(vectors):
        home = next((group for group in groups if float(vector @ vectors[group[0]]) >= least), None)
        if home is None:
            groups.append([row])
        else:
            home.append(row)
    return groups


def clusters(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n // 4, 16))[rng.integers(0, n // 4, n)] + rng.normal(size=(n, 16)) * 0.15
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_a_plain_loop_whatever_the_block(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clusters(200, seed)
    expected = plainly(vectors, 0.95)
    assert 20 < len(expected) < 180
    for block in (7, 64, 1024):
        monkeypatch.setattr(distinct, "_BLOCK", block)
        assert fold(vectors, 0.95) == expected


def test_no_group_grows_by_chains() -> None:
    angles = np.radians([0, 10, 20, 30])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert fold(vectors, float(np.cos(np.radians(11)))) == [[0, 1], [2, 3]]


def test_equal_vectors_are_one_group_even_at_a_cosine_of_one() -> None:
    row = np.random.default_rng(0).normal(size=48).astype(np.float32)
    assert fold(np.stack([row, row * 3, row]), 1.0) == [[0, 1, 2]]
    assert fold(np.empty((0, 8), np.float32), 0.9) == []
