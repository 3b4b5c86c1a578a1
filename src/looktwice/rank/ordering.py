"""Order candidates by score, then coarse score, then id. `fusion.fuse` orders hits, and asks `tie_rule` about ties.

This module knows numbers and ids, no model.
"""

from __future__ import annotations

from collections.abc import Sequence

from looktwice.types import Candidate

EDGE = 1e-6


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


def maxsims(shortlist: Sequence[Candidate], rows: Sequence[int]) -> list[float] | None:
    """Return the middle look's score of each row; None if it saw none of them.

    A row that it did not see stood below all that it saw, so it gets just less than the least of them. To drop what is
    known of the others would reverse their order.

    >>> maxsims([Candidate("a", 0.5, 0.9), Candidate("b", 0.4), Candidate("c", 0.7, 0.3)], [0, 1, 2])
    [0.9, 0.299999, 0.3]
    """
    known = [score for i in rows if (score := shortlist[i].maxsim) is not None]
    if not known:
        return None
    return [min(known) - EDGE if (score := shortlist[i].maxsim) is None else score for i in rows]
