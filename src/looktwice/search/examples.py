"""Search by examples: several items to be like and items to be unlike, in one query.

The first look combines unit vectors: the mean of the positive examples minus UNLIKE_WEIGHT times the mean of the
negative ones. The second look shows the model each positive example with each candidate, and `combine` joins the
scores; negative examples are not shown. docs/lab/examples.md has the measurements behind both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import UnknownName
from looktwice.types import SCORED, Item, PairScores

if TYPE_CHECKING:
    from looktwice.types import FloatArray

UNLIKE_WEIGHT = 0.25
"""The weight of the negative examples against that of the positive ones."""

RULES = ("max", "mean")


@dataclass(frozen=True, slots=True)
class StoredItem(Item):
    """An item of the table as an example: its stored vector is used, and the answer leaves the item out."""

    vector: FloatArray | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Examples(Item):
    """A query of several items. Its own image and text are those of the first positive example.

    `like` are the positive examples, at least one; `unlike` the negative ones. `rule` joins the scores of the second
    look: "max" is the p of the positive example that fits best, "mean" the mean over all of them.
    """

    like: tuple[Item, ...] = ()
    unlike: tuple[Item, ...] = ()
    rule: str = "mean"
    weight: float = UNLIKE_WEIGHT

    @classmethod
    def of(cls, like: Sequence[Item], unlike: Sequence[Item], name: str, rule: str = "mean") -> Examples:
        """Return the query of these examples. Raises UnknownName for an unknown rule."""
        if rule not in RULES:
            raise UnknownName("rule for examples", rule, RULES)
        first = like[0]
        own = {key: getattr(first, key) for key in ("image", "text", "metadata", "uri", "sha256", "tokens")}
        return cls(name, **own, like=tuple(like), unlike=tuple(unlike), rule=rule)

    def each(self, change: Callable[[Item], Item]) -> Examples:
        """Return the query with every example changed."""
        like, unlike = tuple(map(change, self.like)), tuple(map(change, self.unlike))
        return replace(self, image=like[0].image, text=like[0].text, like=like, unlike=unlike)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the examples for a run's manifest."""
        return {"like": len(self.like), "unlike": len(self.unlike), "rule": self.rule, "unlike_weight": self.weight}


def left_out(query: Item) -> set[str]:
    """Return the ids of stored items that the query was made of, which the answer leaves out."""
    return {item.id for item in examples_of(query) if isinstance(item, StoredItem)}


def settings_of(query: Item) -> Mapping[str, Any]:
    """Return what a manifest says about the examples of a query: nothing for any other query."""
    return {"examples": query.settings()} if isinstance(query, Examples) else {}


def positives(query: Item) -> tuple[Item, ...]:
    """Return the positive examples of a query; any other query is its own."""
    return query.like if isinstance(query, Examples) else (query,)


def examples_of(query: Item) -> tuple[Item, ...]:
    """Return all examples of a query, the positive ones first; any other query is its own."""
    return (*query.like, *query.unlike) if isinstance(query, Examples) else (query,)


def mixed(query: Item, vectors: Sequence[FloatArray]) -> FloatArray:
    """Return the unit vector [d] of a query from those of its examples; zero or NaN if it has no direction."""
    if not isinstance(query, Examples):
        return vectors[0]
    rows = [np.asarray(vector, np.float64) for vector in vectors]
    units = np.stack([row / np.linalg.norm(row) for row in rows])
    like, unlike = units[: len(query.like)], units[len(query.like) :]
    mixed = like.mean(axis=0) - (query.weight * unlike.mean(axis=0) if len(unlike) else 0)
    length = np.linalg.norm(mixed)
    unit: FloatArray = np.asarray(mixed / length if length > 1e-6 else np.full_like(mixed, np.nan), np.float32)
    return unit


def joined(query: Item, parts: Sequence[PairScores | None]) -> PairScores | None:
    """Return the scores of a query from those of its positive examples; None if there are none."""
    scored = [part for part in parts if part is not None]
    return combine(scored, query.rule if isinstance(query, Examples) else "max") if scored else None


def combine(parts: Sequence[PairScores], rule: str) -> PairScores:
    """Join the scores of the same candidates against several queries.

    "max" takes each candidate's row from the query with the highest p. "mean" takes the mean of p, and the other
    numbers from the row whose p is nearest to it. Rows without a score do not count, unless a candidate has no other.
    """
    if len(parts) == 1:
        return parts[0]
    p = np.stack([np.where([s in SCORED for s in part.status], part.p, np.nan) for part in parts])
    known = np.isfinite(p)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known.any(axis=0), np.where(known, p, 0).sum(axis=0) / count, np.nan)
    distance = np.abs(p - mean) if rule == "mean" else -p
    rows = np.where(known, distance, np.inf).argmin(axis=0)
    chosen = _rows(parts, rows)
    return (
        replace(chosen, p=np.where(np.isfinite(mean), mean, chosen.p).astype(np.float32)) if rule == "mean" else chosen
    )


def _rows(parts: Sequence[PairScores], rows: Any) -> PairScores:
    """Return, for each candidate i, row i of part `rows[i]`."""
    places = np.arange(len(rows))
    labels = max(part.label_logits.shape[1] for part in parts)
    logits = [
        np.pad(q.label_logits, ((0, 0), (0, labels - q.label_logits.shape[1])), constant_values=np.nan) for q in parts
    ]

    def pick(arrays: Sequence[Any]) -> Any:
        return np.stack(arrays)[rows, places]

    none = np.full((len(rows), 2), np.nan, dtype=np.float32)
    bounded = any(part.bounds is not None for part in parts)
    return PairScores(
        p=pick([part.p for part in parts]),
        label_logits=pick(logits),
        entropy=pick([part.entropy for part in parts]),
        off_mass=pick([part.off_mass for part in parts]),
        argmax_id=pick([part.argmax_id for part in parts]),
        status=tuple(parts[row].status[place] for place, row in enumerate(rows)),
        bounds=pick([none if part.bounds is None else part.bounds for part in parts]) if bounded else None,
    )
