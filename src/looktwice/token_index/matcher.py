"""Compare an image's visual tokens with the stored ones of many items, from their codes.

This module joins `late_interaction`, `codecs` and a table; codes that were read are kept in memory for later queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from looktwice.codecs import Codec, layout_from_json, parse_codec
from looktwice.errors import MediaError, Mismatch, StoreError
from looktwice.late_interaction import rarity, unit_rows, weights_of
from looktwice.late_interaction.agreement import AGREEMENT, Grids
from looktwice.late_interaction.maxsim import POWER
from looktwice.score import TokenMaker
from looktwice.token_index.crops import VIEWS, WHOLE, Region, cropped, has_crops, view_layouts
from looktwice.token_index.matching import (
    Opened,
    QueryTokens,
    best_matches,
    cosines_of,
    grids,
    joined,
    scores_of_images,
    whole,
)
from looktwice.token_index.rarity import Rarity, rarity_of
from looktwice.token_index.sets import TokenSet, is_late, matching, open_set
from looktwice.token_index.zoom import rare_place, zoomed
from looktwice.types import Item, TokensInfo

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.store import TableReader

CACHE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The scores of some items, by id, and counts: "matched", "missing" (no stored tokens) and "damaged".

    `views` has the view that matched best, of each item where that is a crop.
    """

    scores: Mapping[str, float]
    counts: Counter[str]
    views: Mapping[str, int] = field(default_factory=dict)


class TokenMatcher:
    """A matcher of images with the items of one token set. Raises what `open_set` raises.

    Of whole images and crops, `codec` None takes the set with crops, if there is one. `option` names the codec.
    `power` is that of the rarities; the package `late_interaction` has the formula. `cache_bytes` limits the codes
    kept in memory.
    """

    def __init__(
        self,
        table: TableReader,
        maker: TokenMaker,
        codec: str | None = None,
        *,
        option: str = "--codec",
        power: float = POWER,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.table, self.maker, self.power = table, maker, power
        self.set: TokenSet = _opened_set(table, maker.tokens_info(), codec, option)
        self._cache = _Cache(cache_bytes)
        self._rarity: Rarity | None = None
        self._lock = Lock()

    @property
    def rarity(self) -> Rarity:
        """Return the sample of the collection that rarities are measured on; read or drawn at first use."""
        with self._lock:
            if self._rarity is None:
                self._rarity = rarity_of(self.table, self.set)
            return self._rarity

    def query(self, item: Item, zoom: bool = False) -> QueryTokens:
        """Return an image's own tokens, pooled as the codec pools but not quantised, with weights by rarity.

        `zoom` adds those of the crop around the rare ones, if that is smaller. Raises MediaError for tokens that are
        not finite.
        """
        import torch

        asked = self._tokens(item, WHOLE)
        if not self.rarity.records:
            return asked
        rare = self._rarities(asked)
        h, w = asked.grids[-1]
        place = rare_place(rare[-h * w :], (h, w)) if zoom else None
        if place is not None:
            closer = self._tokens(zoomed(item, place), place)
            rare = torch.cat([rare, self._rarities(closer)])
            asked = joined(asked, closer)
        return replace(asked, weights=weights_of(rare, self.power))

    def _tokens(self, item: Item, place: Region) -> QueryTokens:
        """Return the tokens of an image that shows this place of the query, without weights."""
        import torch

        codec = self.set.codec
        tokens = self.maker.visual_tokens([item])[0]
        if not torch.isfinite(tokens.features).all():
            raise MediaError("non-finite", "the model's vision tower gave NaN or infinity for this image")
        tokens = Codec(codec.cells).round_trip(tokens) if codec.cells else tokens
        rows = unit_rows(tokens.features)
        rows = rows if codec.codebook is None else unit_rows(codec.codebook.rotate(rows, 0))
        found = grids(tokens.layout)
        return QueryTokens(rows, found, None, [*[None] * (len(found) - 1), place])

    def _rarities(self, asked: QueryTokens) -> Tensor:
        best = best_matches(self.set.codec, asked, self.rarity.records).amax(1)
        return rarity(best) * (asked.rows.abs().amax(1) > 0)

    def scores(self, query: QueryTokens, ids: Sequence[str]) -> TokenScores:
        """Return the score of each of `ids` that has usable tokens."""
        records, counts = self._records(ids)
        known = {id_: found for id_, found in records.items() if not isinstance(found, str)}
        if not known or query.weights is None:
            return TokenScores({}, counts)
        views_of = whole if self.views == 1 else view_layouts
        found, views = scores_of_images(self.set.codec, query, [*known.values()], views_of)
        crops = {id_: view for id_, view in zip(known, views.tolist(), strict=True) if 0 <= view < self.views - 1}
        return TokenScores(dict(zip(known, found.tolist(), strict=True)), counts, crops)

    def cosines(self, query: QueryTokens, id_: str) -> tuple[Tensor, Grids] | None:
        """Return the cosines [T, q] of one item's tokens with the query's, and their grids; None without tokens."""
        found = self._records([id_])[0][id_]
        if isinstance(found, str):
            return None
        return next(cosines_of(self.set.codec, query, [found]))[2][0], grids(self.set.codec.shown(found[1]))

    @property
    def views(self) -> int:
        """Return how many views of each image the token set has."""
        return VIEWS if has_crops(self.set.entry) else 1

    def settings(self) -> dict[str, Any]:
        """Return the token set, the power and the sample for a run's manifest."""
        kept = {name: self.set.entry[name] for name in ("tokens_key", "codec", "codebook_sha256")}
        return {
            **kept,
            "views": self.views,
            "power": self.power,
            "agreement": AGREEMENT,
            "rarity": self.rarity.record(),
        }

    def _records(self, ids: Sequence[str]) -> tuple[dict[str, Opened | str], Counter[str]]:
        """Return the opened codes of each id, or "missing" or "damaged", and counts of all three."""
        with self._lock:
            records = self._cache.get(ids, self.table.tokens_version)
        fresh = dict(_open_codes(self.table, self.set, [id_ for id_ in ids if id_ not in records]))
        with self._lock:
            self._cache.put(fresh)
        records |= fresh
        counts = Counter(found if isinstance(found, str) else "matched" for found in records.values())
        return {id_: records[id_] for id_ in ids}, counts


def _opened_set(table: TableReader, info: TokensInfo, codec: str | None, option: str) -> TokenSet:
    """Open the set with crops if there is one (of this codec), else that of whole images; late codecs come first."""
    with_crops = cropped(info)
    named = None if codec is None else str(parse_codec(codec))
    info = with_crops if matching(table, with_crops, named) else info
    late = [entry["codec"] for entry in matching(table, info) if is_late(entry)]
    return open_set(table, info, late[-1] if late and codec is None else codec, option)


def _open_codes(table: TableReader, kept: TokenSet, ids: Sequence[str]) -> Iterator[tuple[str, Opened | str]]:
    """Yield each id with its opened codes, or with why there are none: "missing" or "damaged"."""
    for id_, row in zip(ids, table.read_codes(ids, kept.key) if ids else [], strict=True):
        if row is None:
            yield id_, "missing"
            continue
        try:
            layout = layout_from_json(row.layout)
            yield id_, (kept.codec.open(row.codes, layout), layout)
        except (StoreError, Mismatch):
            yield id_, "damaged"


class _Cache:
    """The opened codes of one version of a table; the oldest go first when `room` bytes are full."""

    def __init__(self, room: int) -> None:
        self._room, self._bytes, self._version = room, 0, -1
        self._kept: dict[str, Opened | str] = {}

    def get(self, ids: Sequence[str], version: int) -> dict[str, Opened | str]:
        if version != self._version:
            self._kept, self._bytes, self._version = {}, 0, version
        return {id_: self._kept[id_] for id_ in ids if id_ in self._kept}

    def put(self, fresh: Mapping[str, Opened | str]) -> None:
        for id_, found in fresh.items():
            if id_ not in self._kept:
                self._kept[id_] = found
                self._bytes += _size(found)
        while self._bytes > self._room:
            self._bytes -= _size(self._kept.pop(next(iter(self._kept))))


def _size(found: Opened | str) -> int:
    return 200 + (0 if isinstance(found, str) else found[0].codes.nbytes)
