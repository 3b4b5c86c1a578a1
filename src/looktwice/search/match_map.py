"""Tell which tokens of a query found what in a candidate, as boxes on both images.

A box is (left, top, right, bottom) in shares of the image's sides. If a model cuts images into tiles, only tokens of
the view that shows the whole image have a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.errors import MediaError, ModelError
from looktwice.search.middle_stage import MiddleStage
from looktwice.token_index.crops import WHOLE, Region, place_of
from looktwice.types import Item

if TYPE_CHECKING:
    from looktwice.late_interaction.agreement import Grids

Box: TypeAlias = tuple[float, float, float, float]
MOST = 6  # matches of an image: more would hide it


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """One query token and its best match: both boxes, the token's weight, and the cosine after the neighbours' vote."""

    query: Box
    image: Box
    weight: float
    cosine: float

    def record(self) -> dict[str, Any]:
        """Return the match as plain data."""
        boxes = {name: [round(edge, 4) for edge in box] for name, box in (("query", self.query), ("image", self.image))}
        return {**boxes, "weight": round(self.weight, 4), "cosine": round(self.cosine, 4)}


def matches_of(stage: MiddleStage, query: Item, ids: Sequence[str]) -> dict[str, list[TokenMatch]]:
    """Return the heaviest matches of each candidate, the most important first.

    An id without tokens is left out; so are all for a query that the middle look skips.
    """
    if query.image is None:
        return {}
    try:
        tokens, matcher = stage.query_tokens(query)
    except (MediaError, ModelError):
        return {}
    if tokens.weights is None:
        return {}
    found: dict[str, list[TokenMatch]] = {}
    for id_ in ids:
        compared = matcher.cosines(tokens, id_)
        if compared is not None:
            cosines, grids = compared
            best, where = cosines.max(0)
            rows = zip(tokens.weights.tolist(), best.tolist(), where.tolist(), strict=True)
            boxes = _boxes(tokens.grids, tokens.places), _boxes(grids, _places(len(grids), matcher.views))
            every = [_match(boxes, n, place, weight, cosine) for n, (weight, cosine, place) in enumerate(rows)]
            known = [match for match in every if match is not None]
            found[id_] = sorted(known, key=lambda match: -match.weight * match.cosine)[:MOST]
    return found


def _match(
    boxes: tuple[list[Box | None], list[Box | None]], token: int, place: int, weight: float, cosine: float
) -> TokenMatch | None:
    query, image = boxes[0][token], boxes[1][place]
    return None if query is None or image is None else TokenMatch(query, image, weight, cosine)


def _places(grids: int, views: int) -> list[Region | None]:
    """Return the place of each grid of a stored image. Of the tiles of a view only the last shows all of it."""
    each = grids // views
    places = [place_of(view) for view in range(views)] if views > 1 else [WHOLE]
    return [places[n // each] if n % each == each - 1 else None for n in range(grids)]


def _boxes(grids: Grids, places: Sequence[Region | None]) -> list[Box | None]:
    """Return the box of each token."""
    boxes: list[Box | None] = []
    for (h, w), place in zip(grids, places, strict=True):
        boxes += [None if place is None else _box(place, h, w, *at) for at in product(range(h), range(w))]
    return boxes


def _box(place: Region, h: int, w: int, row: int, column: int) -> Box:
    x, y, side = place
    return x + side * column / w, y + side * row / h, x + side * (column + 1) / w, y + side * (row + 1) / h
