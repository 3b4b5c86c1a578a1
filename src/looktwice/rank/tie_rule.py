"""Order candidates that share a score by the model's entropy (2602.22278, choice by entropy).

The paper defines a best candidate only: of those that share the top score, it takes the one whose answer to a second,
True-or-False question has the lowest entropy. This module extends the rule to a ranking: score descending, then entropy
ascending among tied candidates, then coarse score descending, then id. Taken literally, the rule lets a confident
"False" win. The repaired form puts candidates answered True first, the most certain first, and then the others, the
least certain first. This module knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from looktwice.errors import UnknownName, UsageError
from looktwice.types import PairScores


@dataclass(frozen=True, slots=True)
class Ties:
    """A rule for ties. It prints as its name, and the name parses back.

    `by` is "coarse" (the coarse score only), "entropy" (of the answer that gave the score) or "question" (entropy of a
    second answer, for candidates that share the top score). Scores within `tolerance` of their group's best are tied;
    reciprocal ranks are tied only if equal. p is first truncated, not rounded, to `decimals`. With `repaired`, an
    answer of True goes before one of False.
    """

    name: str
    by: str = "coarse"
    tolerance: float = 0.0
    decimals: int | None = None
    repaired: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf or (self.decimals is not None and not 0 <= self.decimals <= 9):
            raise UsageError(
                f"Ties need a tolerance of 0 or more and 0 to 9 decimals, not {self.tolerance:g} and {self.decimals}; "
                "change them."
            )

    @classmethod
    def parse(cls, text: str | Ties) -> Ties:
        """Read a preset, or one with changes: `paper,tolerance=0.01`, `released-code,decimals=3`."""
        if isinstance(text, Ties):
            return text
        name, *changes = text.strip().split(",")
        if name not in PRESETS:
            raise UnknownName("rule for ties", name, PRESETS)
        return replace(PRESETS[name], **dict(_change(change) for change in changes))

    def __str__(self) -> str:
        base, own = asdict(PRESETS[self.name]), asdict(self)
        return ",".join([self.name, *(f"{key}={own[key]}" for key in _CHANGES if own[key] != base[key])])

    def truncate(self, p: float) -> float:
        """Truncate p to `decimals`, as the released code does: int(p · 100) / 100 in binary floating point.

        >>> [PRESETS["released-code"].truncate(p) for p in (0.9991, 0.9951, 0.29, 0.58, 1.0)]
        [0.99, 0.99, 0.28, 0.57, 1.0]
        """
        return p if self.decimals is None else int(p * 10**self.decimals) / 10**self.decimals

    def key(self, answer: PairScores | None, i: int) -> tuple[float, float]:
        """Return the sort key of row i within its tie, lowest first. Rows without an answer go last."""
        known = answer is not None and answer.status[i] == "ok" and math.isfinite(answer.entropy[i])
        if answer is None or not known or self.by == "coarse":
            return (2.0, 0.0)
        entropy = float(answer.entropy[i])
        if self.repaired and answer.p[i] < 0.5:
            return (1.0, -entropy)
        return (0.0, entropy)

    def groups(self, scores: Sequence[float]) -> list[list[int]]:
        """Group the positions of equal `scores`, best first. Each is compared with its group's best, not its neighbour.

        >>> PRESETS["coarse"].groups([0.5, 0.9, 0.5])
        [[1], [0, 2]]
        """
        groups: list[list[int]] = []
        for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
            if groups and scores[groups[-1][0]] - scores[i] <= self.tolerance:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups


PRESETS: Mapping[str, Ties] = {
    preset.name: preset
    for preset in (
        Ties("default", "entropy", tolerance=1e-6, repaired=True),
        Ties("coarse"),
        Ties("paper", "question"),
        Ties("repaired", "question", tolerance=1e-6, repaired=True),
        Ties("released-code", "entropy", decimals=2),
    )
}
_CHANGES = ("tolerance", "decimals")


def _change(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if key not in _CHANGES:
        raise UnknownName("setting of ties", text, [f"{name}=…" for name in _CHANGES])
    try:
        return (key, float(value)) if key == "tolerance" else (key, int(value))
    except ValueError:
        raise UsageError(f"--ties has a bad value in {text!r}; write a number, such as tolerance=0.01.") from None
