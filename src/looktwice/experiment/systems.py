"""Turn stored answers into runs: any fusion, any depth up to the scored one, and a perfect second look."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from looktwice.errors import UsageError
from looktwice.evaluate import Qrels, Run
from looktwice.evaluate.groups import measure_group
from looktwice.experiment.stored import StoredAnswer
from looktwice.rank import Fusion, fuse
from looktwice.search.middle_stage import second_depth
from looktwice.types import Candidate, Hit, PairScores, Status

if TYPE_CHECKING:
    from looktwice.types import FloatArray

WEIGHTS = tuple(Fusion("linear", round(0.1 * i, 1)) for i in range(11))
THREE_WEIGHTS = tuple(
    Fusion("linear", round(0.1 * i, 1), round(0.1 * j, 1), odds)
    for i in range(11)
    for j in range(11 - i)
    for odds in (False, True)
)


@dataclass(frozen=True, slots=True)
class System:
    """One way to rank: the shortlist alone (`fusion` None), or a second look at its first `depth`.

    With `middle` and no fusion, the order of the middle look alone.
    """

    name: str
    fusion: Fusion | None
    depth: int
    ties: str = "default"
    middle: bool = False


def slug(name: str) -> str:
    """Return the name of a system's file.

    >>> slug("second look"), slug("rerank:org/name")
    ('second-look', 'rerank-org-name')
    """
    return re.sub(r"[^\w.+-]+", "-", name)


def fused(answers: Iterable[StoredAnswer], system: System) -> Run:
    """Rank every answer by the rules of `system`, from stored scores."""
    return {answer.query: _ranked(answer, system) for answer in answers}


def perfect(answers: Iterable[StoredAnswer], qrels: Qrels, depth: int) -> Run:
    """Return the run of a perfect second look at the first `depth` candidates. The rest follows in coarse order."""
    run: Run = {}
    for answer in answers:
        labels = qrels.get(answer.query, {})
        head = sorted(answer.ids[:depth], key=lambda name: -labels.get(name, 0))
        names = [*head, *answer.ids[depth:]]
        run[answer.query] = [(name, -float(rank)) for rank, name in enumerate(names)]
    return run


def ideal(qrels: Qrels) -> Run:
    """Return all relevant items, best first: the best possible run."""
    return {
        query: [(name, float(grade)) for name, grade in sorted(labels.items(), key=lambda row: -row[1]) if grade > 0]
        for query, labels in qrels.items()
    }


def tune(
    answers: Iterable[StoredAnswer], qrels: Qrels, measure: str, depth: int, ties: str = "default"
) -> tuple[Fusion, dict[str, float]]:
    """Return the best weights of 0, 0.1 … 1 on these answers, and the value of each. Ties prefer half p.

    Raises UsageError if the answers have no second look or no labels.
    """
    answers = list(answers)
    if not any(answer.p for answer in answers):
        raise UsageError("--tune-on needs a second look, but the answers have no p; leave it out.")
    values = {
        fusion: measure_group(fused(answers, System("", fusion, depth, ties)), qrels, [measure])[measure]
        for fusion in (THREE_WEIGHTS if any(answer.maxsim for answer in answers) else WEIGHTS)
    }
    best = max(values, key=lambda fusion: (values[fusion], -abs(fusion.p_weight - 0.5)))
    return best, {str(fusion): round(value, 6) for fusion, value in values.items()}


def _ranked(answer: StoredAnswer, system: System) -> list[tuple[str, float]]:
    if system.fusion is None and not system.middle:
        return sorted(zip(answer.ids, answer.coarse, strict=True), key=lambda row: (-row[1], row[0]))
    return [(hit.id, hit.score) for hit in reranked(answer, system)]


def reranked(answer: StoredAnswer, system: System) -> list[Hit]:
    """Return the hits of a search with the settings of `system`."""
    shortlist = answer.candidates
    if system.fusion is None:
        known = shortlist if system.middle else [Candidate(c.id, c.coarse) for c in shortlist]
        return fuse(known, None, explain=True)
    depth = second_depth(shortlist, system.depth)  # earlier versions scored more than the middle look had compared
    asked = answer.ids[:depth]
    scores = scores_of(answer.p[:depth], answer.entropy[:depth], gone=answer.gone[:depth])
    again = [answer.second.get(name, (None, None)) for name in asked]
    second = scores_of([p for p, _ in again], [entropy for _, entropy in again])
    return fuse(shortlist, scores, system.fusion, ties=system.ties, second=second, explain=True)


def scores_of(
    p: Sequence[float | None],
    entropy: Sequence[float | None] = (),
    off_mass: Sequence[float | None] = (),
    gone: Sequence[bool] = (),
) -> PairScores:
    """Return stored probabilities in a scorer's form; None is a pair that failed, or an unknown entropy or off-mass.

    A pair that is `gone` could not be read: it is "missing", and keeps its place (see `rank.missing`).
    """
    n = len(p)
    values, entropies, away = (_numbers(x or (None,) * n) for x in (p, entropy, off_mass))
    status = tuple(map(_status, p, gone or (False,) * n))
    return PairScores(values, np.zeros((n, 0), np.float32), entropies, away, np.full(n, -1, np.int64), status)


def _status(p: float | None, gone: bool) -> Status:
    if p is not None:
        return "ok"
    return "missing" if gone else "failed"


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float32)
