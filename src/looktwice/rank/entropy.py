"""Choice among candidates that share a score, by how sure the model was (2602.22278, choice by entropy).

The paper defines a best candidate only: of those that share the top score, the one whose answer to a second, True-or-
False question has the lowest entropy. Extended to a ranking here: score descending, then entropy ascending among
those that were asked about, then coarse score descending, then id. Read to the letter, a confident "False" wins; the
repaired form puts those that were answered True first, the surest first, and then the others, the least sure first.
Knows numbers only.
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
    """How ties are broken. Prints as its name, and the name parses back.

    `by`: "coarse" (nothing but the coarse score), "entropy" (of the answer that gave the score) or "question" (of a
    second one, for those alone that share the top score). Scores within `tolerance` of their group's best are tied
    (reciprocal ranks only where they are equal).
    `decimals`: p is cut off, not rounded, to so many first. `repaired`: an answer of True goes before one of False.
    """

    name: str
    by: str = "coarse"
    tolerance: float = 0.0
    decimals: int | None = None
    repaired: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf or (self.decimals is not None and not 0 <= self.decimals <= 9):
            raise UsageError("Ties take a tolerance of 0 or more, and 0 to 9 decimals.")

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
        """p with the decimals that count, as the released code cuts it: int(p · 100) / 100 in binary floating point.

        >>> [PRESETS["released-code"].truncate(p) for p in (0.9991, 0.9951, 0.29, 0.58, 1.0)]
        [0.99, 0.99, 0.28, 0.57, 1.0]
        """
        return p if self.decimals is None else int(p * 10**self.decimals) / 10**self.decimals

    def key(self, answer: PairScores | None, i: int) -> tuple[float, float]:
        """What row i is sorted by among those it is tied with, lowest first; rows that nothing is known of go last."""
        known = answer is not None and answer.status[i] == "ok" and math.isfinite(answer.entropy[i])
        if answer is None or not known or self.by == "coarse":
            return (2.0, 0.0)
        entropy = float(answer.entropy[i])
        if self.repaired and answer.p[i] < 0.5:
            return (1.0, -entropy)
        return (0.0, entropy)

    def groups(self, scores: Sequence[float]) -> list[list[int]]:
        """Positions of `scores`, best first, in groups that count as equal; a group hangs on its best, not in chains.

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
        raise UsageError(f"Ties cannot read {text!r}; write a number, such as tolerance=0.01.") from None
