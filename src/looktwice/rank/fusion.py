"""Combine coarse scores and p into one ranking.

A ranking has two blocks: first the scored candidates, by fused score; then the unscored ones, by coarse score. A
candidate whose scoring failed belongs to the second block. It carries its status and never gets a number that looks
like a probability. This module knows candidates and numbers, no model and no file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from looktwice.errors import UnknownName, UsageError
from looktwice.rank.entropy import Ties
from looktwice.rank.ties import order, shared_ranks
from looktwice.types import SCORED, Candidate, Choice, Hit, PairScores

CHOICES = (
    Choice("0.5", "λ·coarse + (1−λ)·p with λ = 0.5; any λ from 0 to 1", "cosines"),
    Choice("p-only", "p alone, ties by coarse score"),
    Choice("rrf", "reciprocal rank fusion, 1/(60 + rank) summed; rrf:C for another constant"),
)
RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, SIGIR 2009


@dataclass(frozen=True, slots=True)
class Fusion:
    """A rule that joins coarse score and probability. It prints as its name, and the name parses back.

    `linear`: λ·coarse + (1−λ)·p with λ = `weight` in [0, 1] (MLLM-ILR: λ = 0.5); λ = 0 is called `p-only`.
    `rrf`: 1/(c + rank by coarse) + 1/(c + rank by p) with c = `weight` > 0; equal values share a rank.

    >>> [str(Fusion.parse(name)) for name in ("0.5", "p-only", "rrf")]
    ['0.5', 'p-only', 'rrf:60']
    """

    method: Literal["linear", "rrf"] = "linear"
    weight: float = 0.5

    def __post_init__(self) -> None:
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
        method, _, constant = name.strip().partition(":")
        try:
            if method == "rrf":
                return cls("rrf", float(constant) if ":" in name else float(RRF_CONSTANT))
            return cls("linear", 0.0 if name.strip() == "p-only" else float(name))
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UnknownName("fusion", name, ("a weight such as 0.5", "p-only", "rrf", "rrf:60")) from None

    def __str__(self) -> str:
        number = repr(float(self.weight)).removesuffix(".0")
        if self.method == "rrf":
            return f"rrf:{number}"
        return "p-only" if self.weight == 0 else number

    def scores(self, coarse: Sequence[float], p: Sequence[float]) -> list[float]:
        """Return one fused score per candidate; both sequences have the same length and hold finite numbers."""
        if self.method == "linear":
            return [self.weight * c + (1 - self.weight) * q for c, q in zip(coarse, p, strict=True)]
        ranks = zip(shared_ranks(coarse), shared_ranks(p), strict=True)
        return [1 / (self.weight + a) + 1 / (self.weight + b) for a, b in ranks]


def fuse(
    shortlist: Sequence[Candidate],
    scores: PairScores | None,
    fusion: Fusion | str | float = "0.5",
    *,
    ties: Ties | str = "coarse",
    second: PairScores | None = None,
    explain: bool = False,
) -> list[Hit]:
    """Rank a shortlist: every candidate once, best first, ranks 1…n, scores never rising from one hit to the next.

    `scores` covers the first `len(scores.p)` candidates; None keeps the coarse order. Unscored candidates below scored
    ones get their coarse score, lowered by one constant per query, so that the best of them lies 1 below the worst
    scored hit. So sorting by `score` equals sorting by `rank`, and a raw cosine is never compared with a fused score.
    A row counts as scored if its status is "ok" or "bounded" and p is finite; any other row of `scores` carries its
    status in `explain`. With `explain=True` every hit holds the parts of its score. `ties` orders candidates that share
    a score; all of them get the best score among them. `second` holds the answers to its second question, in the order
    of `scores`.
    Raises UsageError for repeated ids, a coarse score that is not finite, or more scores than candidates.
    """
    fusion, ties = Fusion.parse(fusion), Ties.parse(ties)
    _check(shortlist, scores)
    seen = [i for i in range(len(scores.p)) if _usable(scores, i)] if scores is not None else []
    p = {i: float(scores.p[i]) for i in seen} if scores is not None else {}
    fused = fusion.scores([shortlist[i].coarse for i in seen], [ties.truncate(p[i]) for i in seen])
    groups = _groups(fusion, ties, fused)
    for group in groups:
        for place in group:
            fused[place] = fused[group[0]]
    answer = second if ties.by == "question" else scores
    keys = {seen[place]: ties.key(answer, seen[place]) for place in range(len(seen))}
    unseen = [i for i in range(len(shortlist)) if i not in p]
    value = dict(zip(seen, fused, strict=True)) | _lowered(shortlist, unseen, fused)
    tied = {seen[place] for group in groups if len(group) > 1 for place in group}
    scored = sorted(seen, key=lambda i: (-value[i], keys[i], -shortlist[i].coarse, shortlist[i].id))
    ranked = [*scored, *_sorted(shortlist, unseen, [shortlist[i].coarse for i in unseen])]
    coarse_rank = {
        i: r for r, i in enumerate(_sorted(shortlist, range(len(shortlist)), [c.coarse for c in shortlist]), 1)
    }
    return [
        Hit(
            id=shortlist[i].id,
            rank=rank,
            score=value[i],
            coarse=float(shortlist[i].coarse),
            p=p.get(i),
            scored=i in p,
            explain=_explanation(scores, i, coarse_rank[i], fusion, full=explain)
            | (_tie(ties, second, i) if explain and i in tied else {})
            or None,
        )
        for rank, i in enumerate(ranked, start=1)
    ]


def below(first: Sequence[Hit], rest: Sequence[Hit]) -> list[Hit]:
    """Return `first`, then `rest`, whose scores are lowered by one constant to lie 1 below the others."""
    if first and rest:
        ceiling = first[-1].score - 1
        shift = rest[0].score - ceiling
        rest = [replace(hit, score=min(hit.score - shift, ceiling)) for hit in rest]
    return [replace(hit, rank=rank) for rank, hit in enumerate([*first, *rest], start=1)]


def _groups(fusion: Fusion, ties: Ties, fused: Sequence[float]) -> list[list[int]]:
    """Group scores that count as equal. Reciprocal ranks lie close together, so they get no tolerance."""
    return (ties if fusion.method == "linear" else replace(ties, tolerance=0.0)).groups(fused)


def _check(shortlist: Sequence[Candidate], scores: PairScores | None) -> None:
    repeated = [name for name, n in Counter(c.id for c in shortlist).items() if n > 1]
    if repeated:
        raise UsageError(f"The shortlist names {repeated[0]!r} more than once; list each candidate once.")
    for candidate in shortlist:
        if not math.isfinite(candidate.coarse):
            raise UsageError(
                f"Candidate {candidate.id!r} has the coarse score {candidate.coarse}; give a finite number."
            )
    if scores is not None and len(scores.p) > len(shortlist):
        raise UsageError(
            f"fuse got {len(scores.p)} scores for {len(shortlist)} candidates; pass the shortlist that was scored."
        )


def _usable(scores: PairScores, i: int) -> bool:
    return scores.status[i] in SCORED and math.isfinite(scores.p[i])


def _status(scores: PairScores | None, i: int) -> str:
    if scores is None or i >= len(scores.p):
        return "not scored"
    return "failed" if scores.status[i] in SCORED and not _usable(scores, i) else scores.status[i]


def _sorted(shortlist: Sequence[Candidate], rows: Sequence[int], values: Sequence[float]) -> list[int]:
    places = order(values, [shortlist[i].coarse for i in rows], [shortlist[i].id for i in rows])
    return [rows[place] for place in places]


def _lowered(shortlist: Sequence[Candidate], unseen: Sequence[int], fused: Sequence[float]) -> dict[int, float]:
    """Return the scores of unscored rows: coarse ones, lowered below the scored block if there is one."""
    if not fused or not unseen:
        return {i: float(shortlist[i].coarse) for i in unseen}
    ceiling = min(fused) - 1
    shift = max(shortlist[i].coarse for i in unseen) - ceiling
    return {i: min(shortlist[i].coarse - shift, ceiling) for i in unseen}  # min: rounding must not lift a row over it


def _explanation(scores: PairScores | None, i: int, coarse_rank: int, fusion: Fusion, *, full: bool) -> dict[str, Any]:
    status = _status(scores, i)
    if not full:
        return {} if status in ("ok", "not scored") else {"status": status, **_interval(scores, i)}
    made_of: dict[str, Any] = {"status": status, "coarse_rank": coarse_rank}
    if scores is None or status == "not scored":
        return made_of
    return made_of | {
        "fusion": str(fusion),
        "entropy": _finite(scores.entropy[i]),
        "off_mass": _finite(scores.off_mass[i]),
        "label_logits": [_finite(x) for x in scores.label_logits[i]],
        "labels": _shares(scores.label_logits[i]),
        "argmax_id": int(scores.argmax_id[i]),
        **_interval(scores, i),
    }


def _interval(scores: PairScores | None, i: int) -> dict[str, Any]:
    """Return the ends of the interval in which a bounded row's p lies."""
    if scores is None or scores.bounds is None or scores.status[i] != "bounded":
        return {}
    low, high = map(float, scores.bounds[i])
    return {"p_bounds": [low, high]}


def tied_at_the_top(
    shortlist: Sequence[Candidate], scores: PairScores, fusion: Fusion | str | float, ties: Ties | str
) -> list[int]:
    """Return the positions of candidates that share the top score, if several do and `ties` asks about them."""
    fusion, ties = Fusion.parse(fusion), Ties.parse(ties)
    seen = [i for i in range(len(scores.p)) if _usable(scores, i)]
    if ties.by != "question" or not seen:
        return []
    p = [ties.truncate(float(scores.p[i])) for i in seen]
    top = _groups(fusion, ties, fusion.scores([shortlist[i].coarse for i in seen], p))[0]
    return [seen[place] for place in top] if len(top) > 1 else []


def _tie(ties: Ties, second: PairScores | None, i: int) -> dict[str, Any]:
    asked = second if second is not None and ties.by == "question" and second.status[i] == "ok" else None
    own = {} if asked is None else {"second_entropy": _finite(asked.entropy[i]), "second_p": _finite(asked.p[i])}
    return {"ties": str(ties), **own}


def _shares(logits: Any) -> list[float]:
    """Return the probabilities of the labels, renormalised over them; empty if a logit is missing."""
    numbers = [float(x) for x in logits]
    if not numbers or any(math.isnan(x) or x == math.inf for x in numbers) or max(numbers) == -math.inf:
        return []
    weights = [math.exp(x - max(numbers)) for x in numbers]
    return [weight / sum(weights) for weight in weights]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
