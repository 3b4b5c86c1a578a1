"""Define how coarse score, maxsim and p become one score. This module knows numbers and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from looktwice.errors import UnknownName, UsageError
from looktwice.rank.ordering import shared_ranks
from looktwice.rank.stack import PREFIX, Stack
from looktwice.types import Choice

CHOICES = (
    Choice("0.5", "λ·coarse + (1−λ)·p with λ = 0.5; any λ from 0 to 1; auto without --maxsim", "cosines"),
    Choice("p-only", "p alone, ties by coarse score"),
    Choice("coarse=0,maxsim=0.5,p=0.5", "three weights that add up to 1", "a middle look"),
    Choice("coarse=0,maxsim=0.75,odds=0.25", "the log-odds of p instead; auto with --maxsim", "a middle look"),
    Choice("stack:bias=-1,coarse=2,logit=1", "a logistic stack, as `looktwice tune` writes it"),
    Choice("rrf", "reciprocal rank fusion, 1/(60 + rank) summed; rrf:C for another constant"),
)
RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, SIGIR 2009
MOST_ODDS = 8.0
"""Log-odds from −8 to 8 become 0 to 1: p from 0.0003 to 0.9997."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """A rule that joins coarse score and probability. It prints as its name, and the name parses back.

    `linear`: λ·coarse + (1−λ)·p with λ = `weight` in [0, 1] (MLLM-ILR: λ = 0.5); λ = 0 is called `p-only`. With
    `maxsim` > 0, the score of the middle look has that weight and p has the rest; for a query without a middle look,
    coarse gets that weight too. With `odds` the log-odds of p take the place of p, scaled to [0, 1]: a p of 0.999 is
    then more than one of 0.99, and p near 0 still tells candidates apart.
    `rrf`: 1/(c + rank by coarse) + 1/(c + rank by p) with c = `weight` > 0, and the same for maxsim if there is a
    middle look; equal values share a rank.
    `stack`: see `rank.stack`.

    >>> [str(Fusion.parse(name)) for name in ("0.5", "rrf", "coarse=0.2,maxsim=0.3,p=0.5", "maxsim=0.75,odds=0.25")]
    ['0.5', 'rrf:60', 'coarse=0.2,maxsim=0.3,p=0.5', 'coarse=0,maxsim=0.75,odds=0.25']
    """

    method: Literal["linear", "rrf", "stack"] = "linear"
    weight: float = 0.5
    maxsim: float = 0.0
    odds: bool = False
    stack: Stack | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.maxsim <= 1 or (self.maxsim and not 0 <= self.weight <= 1 - self.maxsim + 1e-9):
            raise UsageError(f"The weights of a fusion must be from 0 to 1 and add up to 1, not as in {self}.")
        if self.method == "linear" and not 0 <= self.weight <= 1:
            raise UsageError(f"The fusion weight must be between 0 (p only) and 1 (coarse only), not {self.weight:g}.")
        if self.method == "rrf" and not 0 < self.weight < math.inf:
            raise UsageError(f"The constant of reciprocal rank fusion must be above 0, not {self.weight:g}.")

    @classmethod
    def parse(cls, name: str | float | Fusion) -> Fusion:
        """Read `0.5`, `p-only`, `rrf` (= `rrf:60`) or `rrf:C`. Raises UnknownName or, out of range, UsageError."""
        if isinstance(name, Fusion):
            return name
        if not isinstance(name, str):
            return cls("linear", float(name))
        if name.startswith(PREFIX):
            return cls("stack", 0.0, stack=Stack.parse(name))
        method, _, constant = name.strip().partition(":")
        try:
            if "=" in name:
                return cls._weighted(name)
            if method == "rrf":
                return cls("rrf", float(constant) if ":" in name else float(RRF_CONSTANT))
            return cls("linear", 0.0 if name.strip() == "p-only" else float(name))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            known = ("a weight such as 0.5", "p-only", "rrf", "rrf:60", "coarse=0.25,maxsim=0.25,p=0.5")
            raise UnknownName("fusion", name, known) from None

    @classmethod
    def _weighted(cls, name: str) -> Fusion:
        """Read named weights; a missing one is 0. Raises ValueError for other names."""
        given = {key.strip(): float(value) for key, _, value in (part.partition("=") for part in name.split(","))}
        for key in given.keys() - {"coarse", "maxsim", "p", "odds"}:
            raise UnknownName("part of a fusion", key, ("coarse", "maxsim", "p", "odds"))
        if {"p", "odds"} <= given.keys():
            raise ValueError(name)
        if min(given.values()) < 0 or not abs(sum(given.values()) - 1) < 1e-6:
            raise UsageError(f"The weights of {name!r} do not add up to 1; write coarse=0.25,maxsim=0.25,p=0.5.")
        return cls("linear", given.get("coarse", 0.0), given.get("maxsim", 0.0), "odds" in given)

    def __str__(self) -> str:
        if self.stack is not None:
            return str(self.stack)
        number = repr(float(self.weight)).removesuffix(".0")
        if self.maxsim or self.odds:
            second = f"{'odds' if self.odds else 'p'}={round(self.p_weight, 9):g}"
            return ",".join([f"coarse={number}", *([f"maxsim={self.maxsim:g}"] if self.maxsim else []), second])
        if self.method == "rrf":
            return f"rrf:{number}"
        return "p-only" if self.weight == 0 else number

    @property
    def uses_maxsim(self) -> bool:
        """Return whether it weighs a middle look."""
        return bool(self.maxsim) if self.stack is None else self.stack.uses_maxsim

    @property
    def p_weight(self) -> float:
        """Return the weight of p in a linear fusion."""
        return 1 - self.weight - self.maxsim

    def reading(self, p: float) -> float:
        """Return what the weight of p multiplies: p, or its scaled log-odds."""
        if not self.odds:
            return p
        odds = math.log(p / (1 - p)) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)
        return 0.5 + min(max(odds, -MOST_ODDS), MOST_ODDS) / (2 * MOST_ODDS)

    def p_of(self, reading: float) -> float:
        """Undo `reading`; beyond [0, 1] it stays beyond."""
        return reading if not self.odds or not 0 < reading < 1 else 1 / (1 + math.exp(MOST_ODDS * (1 - 2 * reading)))

    def known(self, coarse: float, maxsim: float | None) -> float:
        """Return the part of a linear score that is known before the second look."""
        return self.weight * coarse + (self.maxsim * (coarse if maxsim is None else maxsim) if self.maxsim else 0.0)

    def parts(self, coarse: float, maxsim: float | None, p: float) -> dict[str, float]:
        """Return each look's part of a linear score; they add up to it. Without a middle look the first has both
        weights.

        >>> Fusion.parse("coarse=0,maxsim=0.75,p=0.25").parts(0.5, None, 0.5)
        {'from_coarse': 0.375, 'from_p': 0.125}
        """
        known, second = self.known(coarse, maxsim), self.p_weight * self.reading(p)
        if not self.maxsim or maxsim is None:
            return {"from_coarse": known, "from_p": second}
        first = self.weight * coarse
        return {"from_coarse": first, "from_p": second, "from_maxsim": known - first}

    def scores(self, coarse: Sequence[float], p: Sequence[float], maxsim: Sequence[float] | None = None) -> list[float]:
        """Return one fused score per candidate; the sequences have the same length and hold finite numbers.

        `maxsim` None: there was no middle look.
        """
        third: Sequence[float | None] = [None] * len(coarse) if maxsim is None else maxsim
        if self.method == "linear":
            rows = zip(coarse, third, p, strict=True)
            return [self.known(c, m) + self.p_weight * self.reading(q) for c, m, q in rows]
        lists = [shared_ranks(values) for values in (coarse, p, maxsim) if values is not None]
        return [sum(1 / (self.weight + rank) for rank in ranks) for ranks in zip(*lists, strict=True)]
