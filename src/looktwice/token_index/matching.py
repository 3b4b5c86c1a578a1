"""Compare a query's tokens with the codes of many images, without decoding what a product quantiser wrote.

This module joins `late_interaction` and `codecs`; it knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from looktwice.codecs import Codec, CodecRecord, token_count
from looktwice.codecs.int8 import SCALE_BYTES, Int8
from looktwice.codecs.layout import blocks
from looktwice.codecs.pq import PQ, unpack_codes
from looktwice.late_interaction import Packed, PackedInt8, PackedProducts, PackedRows, agreed, scores_of
from looktwice.late_interaction.agreement import AGREEMENT, Grids
from looktwice.token_index.crops import Region
from looktwice.types import Layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PORTION = 1 << 20
"""Cosines held at once; the system gives larger tensors fresh memory every time, which takes longer than the sums."""
VOTED, EDGE = 200, 1e-6
"""Images that neighbours vote for: more changed mAP by less than 0.001 (docs/lab/maxsim.md). Others lie EDGE lower."""

Opened: TypeAlias = tuple[CodecRecord, Layout]
"""The codes of one image, and the layout that they were made from."""


@dataclass(frozen=True, slots=True)
class QueryTokens:
    """A query's tokens as unit rows [q, d] in the space of the codes, their grids, and their weights [q].

    `weights` None: all tokens are common, so that no match tells anything. `places` tells where in the query each grid
    lies (None: a tile, whose place is not known).
    """

    rows: Tensor
    grids: Grids
    weights: Tensor | None
    places: Sequence[Region | None] = ()


def joined(first: QueryTokens, second: QueryTokens) -> QueryTokens:
    """Return the tokens of both, without weights; those of different grids are no neighbours."""
    import torch

    rows = torch.cat([first.rows, second.rows])
    return QueryTokens(rows, [*first.grids, *second.grids], None, [*first.places, *second.places])


def whole(layout: Layout) -> list[Layout]:
    """Return the one view of an image without crops."""
    return [layout]


def scores_of_images(
    codec: Codec, query: QueryTokens, found: Sequence[Opened], views_of: Callable[[Layout], Sequence[Layout]] = whole
) -> tuple[Tensor, Tensor]:
    """Return the score [n] of each image, and the view [n] that matched best (−1: not known).

    Of more than VOTED images, neighbours vote only for those that are best without votes; the others rank below these.
    """
    import torch

    assert query.weights is not None
    scores = query.rows.new_empty(len(found))
    order = torch.arange(len(found), device=scores.device)
    if len(found) > VOTED:
        scores = scores_of(best_matches(codec, query, found, views_of, 0.0).amax(1), query.weights)
        order = scores.argsort(descending=True, stable=True)
    head, rest = order[:VOTED], order[VOTED:]
    best = best_matches(codec, query, [found[place] for place in head.tolist()], views_of)
    voted = scores_of(best.amax(1), query.weights)
    if len(rest):
        scores[rest] -= (scores[rest[0]] - voted.min() + EDGE).clamp(min=0)
    scores[head] = voted
    views = torch.full_like(order, -1)
    views[head] = scores_of(best, query.weights).argmax(1)
    return scores, views


def best_matches(
    codec: Codec,
    query: QueryTokens,
    found: Sequence[Opened],
    views_of: Callable[[Layout], Sequence[Layout]] = whole,
    strength: float = AGREEMENT,
) -> Tensor:
    """Return [n, V, q]: the cosine of each query token with its best match in each view of each image.

    `strength` is that of the neighbours' vote (0: none).
    """
    import torch

    views = len(views_of(found[0][1]))
    best = query.rows.new_zeros(len(found), views, len(query.rows))
    most = max(1, PORTION // max(1, len(query.rows) * found[0][0].header.kept))
    for start in range(0, len(found), most):
        for places, layout, cosines in cosines_of(codec, query, found[start : start + most], strength):
            counts = [token_count(codec.shown(view)) for view in views_of(layout)]
            if len(set(counts)) == 1:
                found_best = cosines.reshape(len(places), views, counts[0], -1).amax(2)
            else:
                found_best = torch.stack([part.amax(1) for part in torch.split(cosines, counts, dim=1)], dim=1)
            best[torch.tensor(places) + start] = found_best
    return best


def cosines_of(
    codec: Codec, query: QueryTokens, found: Sequence[Opened], strength: float = AGREEMENT
) -> Iterator[tuple[list[int], Layout, Tensor]]:
    """Yield the places of images of one layout, it, and their cosines [n, T, q] after the neighbours' vote."""
    import torch

    device = query.rows.device
    cosines = pack(codec, [record for record, _ in found], device).cosines(query.rows)
    starts = list(accumulate((record.header.kept for record, _ in found), initial=0))
    for layout, places in _by_layout(found).items():
        if len(places) == len(found) and found[0][0].header.kept * len(found) == len(places) * _tokens(codec, layout):
            part = cosines.view(len(places), -1, len(query.rows))
        else:
            rows = [torch.from_numpy(starts[n] + codec.rows(found[n][0], layout)) for n in places]
            part = cosines[torch.stack(rows).to(device)]
        yield places, layout, agreed(part, grids(codec.shown(layout)), query.grids, strength)


def grids(layout: Layout) -> Grids:
    """Return the rows and columns of each block of a layout."""
    return [(block.h, block.w) for block in blocks(layout)]


def pack(codec: Codec, records: Sequence[CodecRecord], device: torch.device | str) -> Packed:
    """Join the features' codes of many images; DeepStack levels are left out."""
    import numpy as np
    import torch

    if isinstance(codec.quantiser, PQ | Int8):
        codes = torch.from_numpy(np.concatenate([record.codes[0] for record in records])).to(device)
        if isinstance(codec.quantiser, Int8):
            return PackedInt8(codes[:, SCALE_BYTES:].view(torch.int8))
        assert codec.codebook is not None
        centroids = codec.codebook.table(codes.device, torch.float32)[0]
        return PackedProducts(unpack_codes(codes, len(centroids), codec.quantiser.bits), centroids)
    rows = [torch.from_numpy(record.codes[0].copy()).view(record.header.torch_dtype) for record in records]
    return PackedRows(torch.cat([one.float() for one in rows]).to(device))


def _by_layout(found: Sequence[Opened]) -> dict[Layout, list[int]]:
    groups: dict[Layout, list[int]] = {}
    for place, (_, layout) in enumerate(found):
        groups.setdefault(layout, []).append(place)
    return groups


@lru_cache(maxsize=512)
def _tokens(codec: Codec, layout: Layout) -> int:
    """Return the number of tokens that the model would be shown."""
    return token_count(codec.shown(layout))
