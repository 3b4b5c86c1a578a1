"""Find groups of near-duplicates in a whole table: by vector, then optionally by the second look.

The item that is kept is the largest image of its group; among equals the shortest id, then the first by alphabet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import QueryError
from looktwice.rank.distinct import LEAST_COSINE, fold
from looktwice.types import Candidate

if TYPE_CHECKING:
    from looktwice.search.retriever import Retriever
    from looktwice.store import TableReader, Where

LEAST_P = 0.5
"""The p from which the second look agrees that two items are the same."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A near-duplicate of the item that is kept: their cosine, and the p of the second look if it was asked."""

    id: str
    coarse: float
    p: float | None = None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """The item to keep, and its near-duplicates, most alike first. `error` says why the second look was not asked."""

    keep: str
    duplicates: tuple[Duplicate, ...]
    error: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the group as plain data."""
        rows = [{"id": one.id, "coarse": one.coarse, "p": one.p} for one in self.duplicates]
        return {"keep": self.keep, "duplicates": rows} | ({"error": self.error} if self.error else {})


def find_duplicates(
    table: TableReader, least: float = LEAST_COSINE, where: Where | None = None
) -> list[DuplicateGroup]:
    """Return the groups of items with a cosine of at least `least` to the one that is kept, largest group first.

    Every pair is compared: the time grows with the square of the number of items that pass `where`, and the memory
    with the number (2 KB each at 512 dimensions).
    """
    ids = [row["id"] for row in sorted(table.rows(["id", "width", "height"], where), key=_worth)]
    if not ids:
        return []
    vectors = table.vectors(ids)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = [_group(ids, vectors, rows) for rows in fold(vectors, least) if len(rows) > 1]
    return sorted(groups, key=lambda group: (-len(group.duplicates), group.keep))


def look_twice(
    groups: Sequence[DuplicateGroup], retriever: Retriever, least_p: float = LEAST_P
) -> Iterator[DuplicateGroup]:
    """Yield each group as the second look sees it: without the items whose p is below `least_p`, most alike first.

    A group of which nothing is left is passed over. One whose kept item cannot be read stays, with its `error`.
    """
    assert retriever.stage is not None
    for group in groups:
        try:
            query = retriever.reader.read({"item": group.keep}, group.keep)
        except QueryError as error:
            yield replace(group, error=str(error))
            continue
        shortlist = [Candidate(one.id, one.coarse) for one in group.duplicates]
        hits = retriever.stage.rerank(query, shortlist, len(shortlist)).hits
        left = tuple(Duplicate(h.id, h.coarse, h.p) for h in hits if h.p is None or h.p >= least_p)
        unread = [hit.id for hit in hits if hit.p is None]
        why = f"{unread[0]!r} could not be scored" if unread else None
        if left:
            yield DuplicateGroup(group.keep, left, why)


def _worth(row: Mapping[str, Any]) -> tuple[int, int, str]:
    return -row["width"] * row["height"], len(row["id"]), row["id"]


def _group(ids: Sequence[str], vectors: Any, rows: Sequence[int]) -> DuplicateGroup:
    first, *rest = rows
    cosines = np.round(vectors[rest].astype(np.float64) @ vectors[first].astype(np.float64), 7)
    found = [Duplicate(ids[row], float(cosine)) for row, cosine in zip(rest, cosines, strict=True)]
    return DuplicateGroup(ids[first], tuple(sorted(found, key=lambda one: (-one.coarse, one.id))))
