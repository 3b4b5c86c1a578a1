"""Plain records of a report's contents. Images arrive as encoded thumbnails, so this needs no files or models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from looktwice.errors import UsageError
from looktwice.types import Candidate, Hit


@dataclass(frozen=True, slots=True)
class ResultView:
    """One candidate of one query, with its place in both orders.

    `before` is its rank in the shortlist and `after` in the answer, both from 1. `p` is None if the second look has no
    score, and `note` then holds the reason; with a score it is "preview" if the model saw one. `thumbnail` is an
    encoded image as `images.thumbnail` returns it (JPEG, PNG, WebP, GIF or AVIF). `relevant` is None without labels.
    `maxsim` is the middle look's score (None: none).
    """

    id: str
    before: int
    after: int
    coarse: float
    score: float
    p: float | None = None
    thumbnail: bytes | None = None
    text: str | None = None
    relevant: bool | None = None
    note: str = ""
    maxsim: float | None = None


@dataclass(frozen=True, slots=True)
class QueryView:
    """One query with every candidate, and measures of both orders if labels are known.

    Queries are sorted and drawn by the first measure that `before` and `after` share; values lie in [0, 1]. `relevant`
    counts all relevant items, including those that the shortlist missed. `matches` are (title, SVG) of the tokens that
    the middle look matched.
    """

    id: str
    results: Sequence[ResultView]
    thumbnail: bytes | None = None
    text: str | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    relevant: int | None = None
    matches: Sequence[tuple[str, str]] = ()


def paired(
    shortlist: Sequence[Candidate],
    hits: Sequence[Hit],
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    texts: Mapping[str, str | None] | None = None,
    relevant: Collection[str] | None = None,
) -> list[ResultView]:
    """Join a shortlist, in its order, with its hits; `relevant` None means no labels.

    Raises UsageError if the two do not hold the same ids.
    """
    place = {candidate.id: rank for rank, candidate in enumerate(shortlist, start=1)}
    if place.keys() != {hit.id for hit in hits}:
        raise UsageError("A report needs every candidate of the shortlist among the hits; do not cut either list.")
    return [
        ResultView(
            id=hit.id,
            before=place[hit.id],
            after=hit.rank,
            coarse=hit.coarse,
            score=hit.score,
            p=hit.p,
            thumbnail=(thumbnails or {}).get(hit.id),
            text=(texts or {}).get(hit.id),
            relevant=None if relevant is None else hit.id in relevant,
            note=str((hit.explain or {}).get("image", "")) if hit.scored else hit.status,
            maxsim=hit.maxsim,
        )
        for hit in hits
    ]
