"""Order candidates by score, then coarse score, then id. `fusion.fuse` orders hits, and asks `tie_rule` about ties.

This module knows numbers and ids, no model.
"""

from __future__ import annotations

from collections.abc import Sequence


def order(scores: Sequence[float], coarse: Sequence[float], ids: Sequence[str]) -> list[int]:
    """Return positions, best first: score descending, then coarse descending, then id ascending by code point.

    Saturated probabilities make equal scores common (MLLM-ILR: many pairs reach exactly 0 or 1), so the coarse score
    decides among them, and the id where even that is equal: the same set gives the same order on every machine.
    All numbers must be comparable; the caller must exclude NaN.

    >>> order([0.5, 0.9, 0.9, 0.9], [0.1, 0.2, 0.3, 0.3], ["a", "b", "d", "c"])
    [3, 2, 1, 0]
    """
    return sorted(range(len(ids)), key=lambda i: (-scores[i], -coarse[i], ids[i]))


def shared_ranks(values: Sequence[float]) -> list[int]:
    """Return the rank of each value from 1, highest first; equal values share the best rank of their group.

    >>> shared_ranks([0.2, 1.0, 1.0, 0.1])
    [3, 1, 1, 4]
    """
    best: dict[float, int] = {}
    for rank, value in enumerate(sorted(values, reverse=True), start=1):
        best.setdefault(value, rank)
    return [best[value] for value in values]
