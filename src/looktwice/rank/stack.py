"""A logistic stack: one score from everything that both looks know of a pair. It prints as its name, which parses back.

score = σ(bias + Σ weight · feature). Features: `coarse`, `maxsim` (coarse for a query without a middle look), `logit`
(log-odds of p), `entropy` (nats) and `off_mass`. This module knows numbers and names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from looktwice.errors import UsageError
from looktwice.rank.ordering import maxsims
from looktwice.types import Candidate, PairScores

PREFIX = "stack:"
BIAS = "bias"
FEATURES = ("coarse", "maxsim", "logit", "entropy", "off_mass")
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Stack:
    """The bias and the weights of a stack, by name.

    >>> str(Stack.parse("stack:bias=-1,coarse=2.5,logit=0.5"))
    'stack:bias=-1.0,coarse=2.5,logit=0.5'
    """

    weights: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, name: str) -> Stack:
        """Read `stack:bias=B,coarse=W,…`. Raises UsageError for other names or numbers."""
        try:
            parts = (part.partition("=") for part in name.removeprefix(PREFIX).split(","))
            weights = tuple((key.strip(), float(value)) for key, _, value in parts)
        except ValueError:
            weights = ()
        names = [key for key, _ in weights]
        known = set(names) <= {BIAS, *FEATURES} and len(set(names)) == len(names)
        if not weights or not known or not all(math.isfinite(weight) for _, weight in weights):
            raise UsageError(f"{name!r} is not a stack; let `looktwice tune` write one.")
        return cls(weights)

    def __str__(self) -> str:
        return PREFIX + ",".join(f"{name}={weight!r}" for name, weight in self.weights)

    @property
    def uses_maxsim(self) -> bool:
        """Return whether it needs a middle look."""
        return any(name == "maxsim" and weight for name, weight in self.weights)

    def scores(self, features: Mapping[str, Sequence[float]]) -> list[float]:
        """Return one score per pair, in [0, 1]. Raises UsageError if a feature of a pair is not known."""
        n = len(features["coarse"])
        total = [0.0] * n
        for name, weight in self.weights:
            values = [1.0] * n if name == BIAS else features[name]
            total = [have + weight * value for have, value in zip(total, values, strict=True)]
        if not all(map(math.isfinite, total)):
            raise UsageError("The stack needs entropy or off-mass, which this scorer does not give; use a weight.")
        return [1 / (1 + math.exp(-max(-700.0, min(700.0, x)))) for x in total]


def features(shortlist: Sequence[Candidate], scores: PairScores, rows: Sequence[int]) -> dict[str, list[float]]:
    """Return the features of the candidates at `rows`, which have scores; NaN is unknown."""
    coarse = [float(shortlist[i].coarse) for i in rows]
    return {
        "coarse": coarse,
        "maxsim": maxsims(shortlist, rows) or coarse,
        "logit": [logit(float(scores.p[i])) for i in rows],
        "entropy": [float(scores.entropy[i]) for i in rows],
        "off_mass": [float(scores.off_mass[i]) for i in rows],
    }


def logit(p: float) -> float:
    """Return the log-odds of a probability, which is kept away from 0 and 1."""
    p = min(1 - EDGE, max(EDGE, p))
    return math.log(p / (1 - p))
