"""Find groups of near-duplicates in a whole table: by vector, then optionally by the second look.

The item that is kept is the largest image of its group; among equals a file rather than a link to it, then the shortest
id, then the first by alphabet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import MediaError, QueryError
from looktwice.rank.distinct import LEAST_COSINE, fold
from looktwice.sources import is_linked
from looktwice.sources.loader import in_chunks
from looktwice.types import Candidate, Item

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
    """The item to keep, and its near-duplicates, most alike first.

    `unscored` are alike by their vectors, but the second look could not see them, so they are no duplicates; `error`
    says why.
    """

    keep: str
    duplicates: tuple[Duplicate, ...]
    error: str | None = None
    unscored: tuple[Duplicate, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the group as plain data."""
        made: dict[str, Any] = {"keep": self.keep, "duplicates": [asdict(one) for one in self.duplicates]}
        if self.unscored:
            made["unscored"] = [asdict(one) for one in self.unscored]
        return made | ({"error": self.error} if self.error else {})


def find_duplicates(
    table: TableReader, least: float = LEAST_COSINE, where: Where | None = None
) -> list[DuplicateGroup]:
    """Return the groups of items with a cosine of at least `least` to the one that is kept, largest group first.

    Every pair is compared: the time grows with the square of the number of items that pass `where`, and the memory
    with the number (2 KB each at 512 dimensions).
    """
    ids = _by_worth([*table.rows(["id", "uri", "root", "sha256", "width", "height"], where)])
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

    Items that cannot be scored become `unscored`: all of them if the kept item cannot be read. A group of which nothing
    is left is passed over.
    """
    for group in groups:
        try:
            query = retriever.reader.read({"item": group.keep}, group.keep)
        except QueryError as error:
            yield DuplicateGroup(group.keep, (), str(error), group.duplicates)
            continue
        seen, why = _asked(query, group.duplicates, retriever)
        left = tuple(one for one in seen if one.p is not None and one.p >= least_p)
        unscored = tuple(one for one in seen if one.p is None)
        if left or unscored:
            yield DuplicateGroup(group.keep, left, _reason(unscored, why), unscored)


def _asked(
    query: Item, duplicates: Sequence[Duplicate], retriever: Retriever
) -> tuple[list[Duplicate], Mapping[str, MediaError]]:
    """Return the items with their p, most alike first, and why some could not be read.

    A stage scores the first of a shortlist only, so it gets them in parts, and leaves out none.
    """
    assert retriever.stage is not None
    seen: list[Duplicate] = []
    why: dict[str, MediaError] = {}
    for part in in_chunks((Candidate(one.id, one.coarse) for one in duplicates), retriever.stage.depth):
        found = retriever.stage.rerank(query, part, len(part))
        seen += [Duplicate(hit.id, hit.coarse, hit.p) for hit in found.hits]
        why |= found.stats.unreadable
    return sorted(seen, key=lambda one: (-(one.p or 0.0), -one.coarse, one.id)), why


def _reason(unscored: Sequence[Duplicate], why: Mapping[str, MediaError]) -> str | None:
    if not unscored:
        return None
    first, *rest = (one.id for one in unscored)
    return f"{first!r}{f' and {len(rest):,} more' if rest else ''} could not be scored ({why.get(first, 'failed')})"


def _by_worth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of items, the one to keep first. Only items of the same bytes can be links to one another."""
    same = Counter(row["sha256"] for row in rows)
    linked = {row["id"] for row in rows if same[row["sha256"]] > 1 and is_linked(row["uri"], row["root"])}

    def worth(row: Mapping[str, Any]) -> tuple[int, bool, int, str]:
        return -row["width"] * row["height"], row["id"] in linked, len(row["id"]), row["id"]

    return [row["id"] for row in sorted(rows, key=worth)]


def _group(ids: Sequence[str], vectors: Any, rows: Sequence[int]) -> DuplicateGroup:
    first, *rest = rows
    cosines = np.round(vectors[rest].astype(np.float64) @ vectors[first].astype(np.float64), 7)
    found = [Duplicate(ids[row], float(cosine)) for row, cosine in zip(rest, cosines, strict=True)]
    return DuplicateGroup(ids[first], tuple(sorted(found, key=lambda one: (-one.coarse, one.id))))
