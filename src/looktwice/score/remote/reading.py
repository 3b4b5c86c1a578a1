"""Read the probability of labels from the log-probabilities that a server lists: a number, or an interval.

Pure maths on numbers and token names. A token that is not listed has no number, but a bound: it is no likelier than the
least likely of the listed top, nor than all that the listed ones leave over.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from looktwice.errors import ServerError
from looktwice.score.readout.probability import assemble, blank
from looktwice.types import PairScores

Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
EXACT = 1e-4
"""Width of an interval that counts as a number: servers themselves differ by as much."""

MOST_TOKENS = 1 << 20  # of a vocabulary
SLACK = 2e-3  # by which listed probabilities may exceed 1: they come rounded


@dataclass(frozen=True, slots=True)
class ListedLogprobs:
    """What a server lists of one distribution: log-probabilities by token.

    `least` is that of the least likely token of its top list, so that no token beyond is likelier (None: no such list).
    """

    logps: Mapping[Hashable, float]
    least: float | None = None

    def __post_init__(self) -> None:
        if any(math.isnan(value) for value in self.logps.values()):
            raise ServerError("The server's log-probabilities are not numbers (NaN); use another server.")
        if any(value > SLACK for value in self.logps.values()):
            raise ServerError("The server sends log-probabilities above 0; use another server.", stops=True)
        if self.mass > 1 + SLACK:
            raise ServerError(
                "The server's probabilities add up to more than 1, so they are not the model's; use another server.",
                stops=True,
            )
        if self.least is not None and 1 - self.mass > SLACK + MOST_TOKENS * math.exp(min(0.0, self.least)):
            raise ServerError(
                "The server lists tokens that are not the likeliest ones, so nothing follows for the others; use "
                "another server.",
                stops=True,
            )

    @property
    def mass(self) -> float:
        """Return the probability of all listed tokens together."""
        return math.fsum(math.exp(min(0.0, value)) for value in self.logps.values())

    @property
    def cap(self) -> float:
        """Return the most that the probability of one token that is not listed can be."""
        rest = max(0.0, 1.0 - self.mass)
        return rest if self.least is None else min(rest, math.exp(min(0.0, self.least)))


def read(
    labels: Sequence[Sequence[Hashable]], values: Sequence[float], listed: ListedLogprobs, argmax_id: int
) -> PairScores:
    """Read one distribution: one row of scores, "ok", "bounded", or "parse_error" if no spelling of a label is listed.

    `labels` names each label's spellings. Entropy is unknown, since no server lists the whole vocabulary.
    """
    known = np.array([_log_sum([listed.logps[k] for k in keys if k in listed.logps]) for keys in labels])
    unseen = np.array([sum(k not in listed.logps for k in keys) for keys in labels])
    rest = max(0.0, 1.0 - listed.mass)
    least = np.exp(known)
    room = np.minimum(unseen * listed.cap, rest)
    off = _off_mass(least, room, rest)
    if not np.isfinite(known).any() or (unseen.any() and not least.any()):
        none = blank(1, len(labels), "parse_error")
        none.off_mass[0] = off
        return none
    low, high = interval(least, least + room, values) if unseen.any() else (0.0, 0.0)
    number = high - low <= EXACT
    with np.errstate(divide="ignore"):
        logits = known if number else np.log(least + room / 2)
    row = assemble(logits[None], np.array([np.nan]), np.array([off]), np.array([argmax_id]), values)
    if number:
        return row
    middle, bounds = np.array([(low + high) / 2], np.float32), np.array([[low, high]], np.float32)
    return replace(row, p=middle, status=("bounded",), bounds=bounds)


def interval(least: Numbers, most: Numbers, values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest Σ value · mass / Σ mass, where each label's mass lies in [least, most].

    The extremes give every label above some value its most and every other its least, or the other way round.
    """
    order = np.argsort(values)
    v, a, b = np.asarray(values, dtype=float)[order], least[order], most[order]
    found = []
    for cut in range(len(v) + 1):
        for mass in (np.concatenate([a[:cut], b[cut:]]), np.concatenate([b[:cut], a[cut:]])):
            if mass.sum() > 0:
                found.append(float(v @ mass / mass.sum()))
    return min(found), max(found)


def _off_mass(known: Numbers, room: Numbers, rest: float) -> float:
    """Return the probability outside of the labels, or NaN if what is listed leaves it open."""
    undecided = min(float(room.sum()), rest)
    off = 1.0 - float(known.sum()) - undecided / 2
    return min(1.0, max(0.0, off)) if undecided <= 1e-3 else math.nan


def _log_sum(values: Sequence[float]) -> float:
    most = max(values, default=-math.inf)
    return most if most == -math.inf else most + math.log(math.fsum(math.exp(x - most) for x in values))
