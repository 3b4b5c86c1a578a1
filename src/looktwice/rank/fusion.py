"""Combine coarse scores and p into one ranking.

A ranking has two blocks: first the scored candidates, by fused score; then the unscored ones, by coarse score. A
candidate whose scoring failed belongs to the second block. It carries its status and never gets a number that looks
like a probability. This module knows candidates and numbers, no model and no file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from looktwice.checked import finite
from looktwice.errors import UsageError
from looktwice.rank.fusion_rule import Fusion
from looktwice.rank.missing import keep_places
from looktwice.rank.ordering import maxsims, order
from looktwice.rank.stack import features
from looktwice.rank.tie_rule import Ties
from looktwice.types import SCORED, Candidate, Hit, PairScores


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

    Scored candidates come first, by fused score, then by the rule for `ties`, coarse score and id. A row counts as
    scored if its status is "ok" or "bounded" and p is finite; any other row carries its status in `explain`. Below them
    come the candidates that only the middle look saw, by its score; then those with a coarse score only. Each of these
    blocks is lowered by one constant, so that its best lies 1 below the worst hit above it: sorting by `score` equals
    sorting by `rank`, and a raw cosine is never compared with a fused score. A candidate whose status is "missing"
    keeps its rank by coarse score, and gets a score between its neighbours'.

    `scores` covers the first `len(scores.p)` candidates; None keeps the coarse order. Candidates that share a score get
    the best score among them; `second` holds the answers to the second question about them, in the order of `scores`.
    With `explain=True` every hit holds the parts of its score. Raises UsageError for repeated ids, a coarse score that
    is not finite, or more scores than candidates.
    """
    fusion, ties = Fusion.parse(fusion), Ties.parse(ties)
    _check(shortlist, scores)
    p = {} if scores is None else {i: float(scores.p[i]) for i in range(len(scores.p)) if _usable(scores, i)}
    value, tied = _fused_with_ties(shortlist, scores, list(p), fusion, ties)
    answer = second if ties.by == "question" else scores
    ranked = sorted(p, key=lambda i: (-value[i], ties.key(answer, i), -shortlist[i].coarse, shortlist[i].id))
    rest = [i for i in range(len(shortlist)) if i not in p]
    matched = [i for i in rest if shortlist[i].maxsim is not None]
    unmatched = [i for i in rest if shortlist[i].maxsim is None]
    for block in (matched, unmatched):
        value |= _lowered(shortlist, block, list(value.values()))
        ranked += _sorted(shortlist, block, [_standing(shortlist[i]) for i in block])
    places = _places(shortlist)
    hits = []
    for rank, i in enumerate(ranked, start=1):
        parts = _explanation(scores, i, places[i], fusion, full=explain)
        parts |= _tie(ties, second, i) if explain and i in tied else {}
        hits.append(_hit(shortlist[i], rank, value[i], p.get(i), parts))
    gone = [] if scores is None else [i for i in range(len(scores.p)) if scores.status[i] == "missing"]
    return keep_places(hits, {shortlist[i].id: places[i]["coarse_rank"] for i in gone})


def below(first: Sequence[Hit], rest: Sequence[Hit]) -> list[Hit]:
    """Return `first`, then `rest`, whose scores are lowered by one constant to lie 1 below the others."""
    if first and rest:
        ceiling = first[-1].score - 1
        shift = rest[0].score - ceiling
        rest = [replace(hit, score=min(hit.score - shift, ceiling)) for hit in rest]
    return [replace(hit, rank=rank) for rank, hit in enumerate([*first, *rest], start=1)]


def _hit(candidate: Candidate, rank: int, score: float, p: float | None, parts: dict[str, Any]) -> Hit:
    maxsim = None if candidate.estimated else candidate.maxsim
    coarse = float(candidate.coarse)
    return Hit(candidate.id, rank, score, coarse, p, scored=p is not None, explain=parts or None, maxsim=maxsim)


def _fused_with_ties(
    shortlist: Sequence[Candidate], scores: PairScores | None, rows: Sequence[int], fusion: Fusion, ties: Ties
) -> tuple[dict[int, float], set[int]]:
    """Return the fused score of each scored row, the best one for all rows of a tie; and the rows that are tied."""
    fused = [] if scores is None else _fused(shortlist, scores, rows, fusion, ties)
    groups = [[rows[place] for place in group] for group in _groups(fusion, ties, fused)]
    own = dict(zip(rows, fused, strict=True))
    best = {i: own[group[0]] for group in groups for i in group}
    return {i: best[i] for i in rows}, {i for group in groups if len(group) > 1 for i in group}


def _fused(
    shortlist: Sequence[Candidate], scores: PairScores, seen: Sequence[int], fusion: Fusion, ties: Ties
) -> list[float]:
    if fusion.stack is not None:
        return fusion.stack.scores(features(shortlist, scores, seen))
    p = [ties.truncate(float(scores.p[i])) for i in seen]
    return fusion.scores([shortlist[i].coarse for i in seen], p, maxsims(shortlist, seen))


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
        if not math.isfinite(candidate.maxsim or 0.0):
            raise UsageError(f"Candidate {candidate.id!r} has the maxsim {candidate.maxsim}; give a finite number.")
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


def _standing(candidate: Candidate) -> float:
    """Return the score that orders a candidate without a second look."""
    return float(candidate.coarse if candidate.maxsim is None else candidate.maxsim)


def _places(shortlist: Sequence[Candidate]) -> list[dict[str, int]]:
    """Return the rank of each candidate by coarse score and, if the middle look saw it, by that."""
    rows = range(len(shortlist))
    matched = [i for i in rows if shortlist[i].maxsim is not None and not shortlist[i].estimated]
    by_coarse = _sorted(shortlist, rows, [c.coarse for c in shortlist])
    found: list[dict[str, int]] = [{} for _ in rows]
    for name, ordered in (
        ("coarse_rank", by_coarse),
        ("maxsim_rank", _sorted(shortlist, matched, [_standing(shortlist[i]) for i in matched])),
    ):
        for rank, i in enumerate(ordered, start=1):
            found[i][name] = rank
    return found


def _lowered(shortlist: Sequence[Candidate], tail: Sequence[int], above: Sequence[float]) -> dict[int, float]:
    """Return the scores of unscored rows: their own, lowered below the rows `above` if there are any."""
    own = {i: _standing(shortlist[i]) for i in tail}
    if not above or not own:
        return own
    ceiling = min(above) - 1
    shift = max(own.values()) - ceiling
    return {i: min(x - shift, ceiling) for i, x in own.items()}  # min: rounding must not lift a row over it


def _explanation(
    scores: PairScores | None, i: int, places: Mapping[str, int], fusion: Fusion, *, full: bool
) -> dict[str, Any]:
    status = _status(scores, i)
    if not full:
        return {} if status in ("ok", "not scored") else {"status": status, **_interval(scores, i)}
    made_of: dict[str, Any] = {"status": status, **places}
    if scores is None or status == "not scored":
        return made_of
    return made_of | {
        "fusion": str(fusion),
        "entropy": finite(scores.entropy[i]),
        "off_mass": finite(scores.off_mass[i]),
        "label_logits": [finite(x) for x in scores.label_logits[i]],
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
    top = _groups(fusion, ties, _fused(shortlist, scores, seen, fusion, ties))[0]
    return [seen[place] for place in top] if len(top) > 1 else []


def _tie(ties: Ties, second: PairScores | None, i: int) -> dict[str, Any]:
    asked = second if second is not None and ties.by == "question" and second.status[i] == "ok" else None
    own = {} if asked is None else {"second_entropy": finite(asked.entropy[i]), "second_p": finite(asked.p[i])}
    return {"ties": str(ties), **own}


def _shares(logits: Any) -> list[float]:
    """Return the probabilities of the labels, renormalised over them; empty if a logit is missing."""
    numbers = [float(x) for x in logits]
    if not numbers or any(math.isnan(x) or x == math.inf for x in numbers) or max(numbers) == -math.inf:
        return []
    weights = [math.exp(x - max(numbers)) for x in numbers]
    return [weight / sum(weights) for weight in weights]
