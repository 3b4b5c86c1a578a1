"""Fold near-duplicates in a shortlist, so that an answer shows each of them once.

They are folded before the second look, so the shortlist reaches further and no pair is scored for a duplicate. The one
that stays is the best by coarse score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from looktwice.errors import UsageError
from looktwice.rank.distinct import LEAST_COSINE, fold
from looktwice.store import TableReader
from looktwice.types import Candidate, Hit

MOST_DEEPER = 16
"""How many times deeper than asked a search goes for distinct candidates, at most."""

FoldedShortlist = tuple[list[Candidate], Mapping[str, tuple[str, ...]]]


def least_cosine(distinct: bool | float) -> float | None:
    """Return the cosine from which candidates are folded, None for no folding. Raises UsageError outside (0, 1]."""
    if distinct is False or distinct is None:
        return None
    least = LEAST_COSINE if distinct is True else float(distinct)
    if not 0 < least <= 1:
        raise UsageError(f"The cosine of near-duplicates (--min-cosine) must be above 0 and at most 1, not {distinct}.")
    return least


def distinct_shortlist(
    table: TableReader, found: Sequence[Candidate], depth: int, least: float, more: Callable[[int], list[Candidate]]
) -> FoldedShortlist:
    """Return up to `depth` distinct candidates of a search, and the ids that were folded into each.

    `found` is its result; `more` searches deeper, for tables with many duplicates.
    """
    known = list(found)
    asked = 4 * depth
    while len(groups := fold(table.vectors([candidate.id for candidate in known]), least)) < depth:
        deeper = more(asked) if asked <= MOST_DEEPER * depth else []
        if len(deeper) <= len(known):
            break
        known, asked = deeper, 4 * asked
    folded = {known[first].id: tuple(known[i].id for i in rest) for first, *rest in groups[:depth] if rest}
    return [known[first] for first, *_ in groups[:depth]], folded


def with_folded(hits: Sequence[Hit], folded: Mapping[str, tuple[str, ...]]) -> list[Hit]:
    """Return the hits with the ids that were folded into each."""
    return [replace(hit, folded=folded[hit.id]) if hit.id in folded else hit for hit in hits]
