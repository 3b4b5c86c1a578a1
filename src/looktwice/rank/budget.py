"""Decide how much of a shortlist gets the second look.

With `auto`, the shortlist is scored in blocks, in coarse order. After each block, the chance that the rest holds a
relevant candidate that would enter the top n is estimated. Scoring stops once that chance is below ε:

    1 − Π_j (1 − P(relevant | gap_j) · P(p > x_j | relevant)),   gap_j = best coarse score − coarse score of j

x_j is the p that candidate j would need for a fused score above the n-th best so far. Both chances come from labelled
pairs (`looktwice calibrate`).

With `cascade`, all candidates are scored from the cheap tokens of a first pass, and the best of them again. This module
knows numbers only; a codec is a name here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from looktwice.errors import UnknownName, UsageError
from looktwice.rank.fusion_rule import Fusion
from looktwice.types import Candidate

BLOCK = 8
KINDS = ("all", "auto:0.01", "auto:0.01@1", "cascade:pool2+pq8@20")


class Odds(Protocol):
    """Probabilities estimated from labelled pairs."""

    def relevance(self, gap: float) -> float:
        """Return P(relevant) of a candidate whose coarse score is `gap` below the best of its shortlist."""
        ...

    def survival(self, p: float) -> float:
        """Return P(score above `p`) of a relevant candidate."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget: `all`, `auto:ε`, `auto:ε@n` or `cascade:CODEC@n`.

    `auto:ε@n` protects the first n places; without @n, as many as the requested hits. `cascade:CODEC@n` scores all
    candidates from the tokens of `first_pass`, and the `best` n again with `--codec`.

    >>> [str(Budget.parse(name)) for name in ("all", "auto:0.01", "auto:0.05@1", "cascade:pool2+pq8@20")]
    ['all', 'auto:0.01', 'auto:0.05@1', 'cascade:pool2+pq8@20']
    """

    epsilon: float | None = None
    top: int | None = None
    first_pass: str | None = None
    best: int = 0

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Read a budget's name. Raises UnknownName, or UsageError for an ε outside (0, 1) or an n below 1."""
        if isinstance(text, Budget):
            return text
        if text == "all":
            return cls()
        kind, _, rest = text.partition(":")
        what, at, count = rest.rpartition("@") if "@" in rest else (rest, "", "1")
        try:
            if kind == "cascade" and what:
                budget = cls(first_pass=what, best=int(count))
            elif kind == "auto":
                budget = cls(float(what), int(count) if at else None)
            else:
                raise ValueError(text)
        except ValueError:
            raise UnknownName("budget", text, KINDS) from None
        if not 0 < (0.5 if budget.epsilon is None else budget.epsilon) < 1 or int(count) < 1:
            raise UsageError(f"Budget {text!r} is out of range; use 0 < ε < 1 and n of 1 or more, as in auto:0.01@1.")
        return budget

    def __str__(self) -> str:
        if self.first_pass is not None:
            return f"cascade:{self.first_pass}@{self.best}"
        if self.epsilon is None:
            return "all"
        return f"auto:{self.epsilon:g}" + (f"@{self.top}" if self.top else "")


def chance_of_a_miss(
    scored: Sequence[tuple[float, float]], rest: Sequence[Candidate], best: float, top: int, fusion: Fusion, odds: Odds
) -> float:
    """Return the chance that stopping misses a relevant candidate: that `rest` holds one for the first `top` places.

    It says nothing about candidates that are not relevant: those may change the list far more often.

    `scored` holds (coarse, p) of the scored candidates, coarse as `blended` returns it; `best` is the shortlist's best
    coarse score. The chance is 1 while fewer than `top` are scored. Raises UsageError for reciprocal rank fusion, whose
    scores need all ranks.
    """
    if fusion.method != "linear":
        raise UsageError(
            "A budget that stops early cannot be used with the fusion rrf; use the fusion p-only or a weight."
        )
    if not rest:
        return 0.0
    if len(scored) < top:
        return 1.0
    two = replace(fusion, weight=1 - fusion.p_weight, maxsim=0.0) if fusion.maxsim else fusion
    bar = sorted(two.scores([c for c, _ in scored], [p for _, p in scored]), reverse=True)[top - 1]
    stays = 1.0
    for candidate in rest:
        needed = two.p_of(_needed(bar, blended(candidate, fusion), two.weight))
        if needed < 1:
            stays *= 1 - odds.relevance(best - candidate.coarse) * odds.survival(needed)
    return 1 - stays


def blended(candidate: Candidate, fusion: Fusion) -> float:
    """Return the score that stands for both earlier looks: coarse, or its mean with maxsim by their weights."""
    if not fusion.maxsim:
        return candidate.coarse
    return fusion.known(candidate.coarse, candidate.maxsim) / (fusion.weight + fusion.maxsim)


def _needed(bar: float, coarse: float, weight: float) -> float:
    """Return the reading of p above which a candidate's fused score exceeds `bar`."""
    if weight == 1:
        return -math.inf if coarse > bar else math.inf
    return (bar - weight * coarse) / (1 - weight)
