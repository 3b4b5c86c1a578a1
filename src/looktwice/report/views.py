"""What a report shows, as plain records. Knows neither files nor models: pictures arrive as encoded thumbnails."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from looktwice.errors import UsageError
from looktwice.types import Candidate, Hit


@dataclass(frozen=True, slots=True)
class ResultView:
    """One candidate of one query, with its place in both orders.

    `before` is its rank in the shortlist and `after` in the answer, both from 1. `p` is None where the second look has
    no score, and `note` then says why. `thumbnail` is an encoded picture as `images.thumbnail` returns it (JPEG, PNG,
    WebP, GIF or AVIF); `relevant` is None where nothing is labelled.
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


@dataclass(frozen=True, slots=True)
class QueryView:
    """One query: what was asked, every candidate, and measures of both orders where labels are known.

    The first name in `before` and `after` that both share is the one that queries are sorted by and drawn with; values
    lie in [0, 1]. `relevant` is how many relevant items exist, whether or not the shortlist found them.
    """

    id: str
    results: Sequence[ResultView]
    thumbnail: bytes | None = None
    text: str | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    relevant: int | None = None


def paired(
    shortlist: Sequence[Candidate],
    hits: Sequence[Hit],
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    texts: Mapping[str, str | None] | None = None,
    relevant: Collection[str] | None = None,
) -> list[ResultView]:
    """Join a shortlist, in its order, with the hits made of it; `relevant` None means that nothing is labelled.

    Raises UsageError when the two do not hold the same ids.
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
            note="" if hit.scored else str((hit.explain or {}).get("status", "not scored")),
        )
        for hit in hits
    ]
