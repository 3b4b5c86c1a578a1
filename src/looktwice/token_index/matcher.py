"""Compare an image's visual tokens with the stored ones of many items, from their codes.

This module joins `late_interaction`, `codecs` and a table; codes that were read are kept in memory for later queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

from looktwice.codecs import Codec, CodecRecord, layout_from_json, token_count
from looktwice.codecs.int8 import SCALE_BYTES, Int8
from looktwice.codecs.layout import blocks
from looktwice.codecs.pq import PQ, unpack_codes
from looktwice.errors import MediaError, Mismatch, StoreError
from looktwice.late_interaction import (
    Packed,
    PackedInt8,
    PackedProducts,
    PackedRows,
    agreed,
    rarity,
    scores_of,
    unit_rows,
    weights_of,
)
from looktwice.late_interaction.agreement import Grids
from looktwice.late_interaction.maxsim import POWER
from looktwice.score import TokenMaker
from looktwice.token_index.rarity import Opened, Rarity, rarity_of
from looktwice.token_index.sets import TokenSet, open_set
from looktwice.types import Item, Layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.store import TableReader

CACHE_BYTES = 1 << 28
PORTION = 1 << 22
"""Cosines held at once."""


@dataclass(frozen=True, slots=True)
class QueryTokens:
    """A query's tokens as unit rows [q, d] in the space of the codes, their grids, and their weights [q].

    `weights` None: all tokens are common, so that no match tells anything.
    """

    rows: Tensor
    grids: Grids
    weights: Tensor | None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The scores of some items, by id, and counts: "matched", "missing" (no stored tokens) and "damaged"."""

    scores: Mapping[str, float]
    counts: Counter[str]


class TokenMatcher:
    """A matcher of images with the items of one token set. Raises what `open_set` raises.

    `power` is that of the rarities; the package `late_interaction` has the formula. `cache_bytes` limits the codes
    kept in memory.
    """

    def __init__(
        self,
        table: TableReader,
        maker: TokenMaker,
        codec: str | None = None,
        *,
        power: float = POWER,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.table, self.maker, self.power = table, maker, power
        self.set: TokenSet = open_set(table, maker.tokens_info(), codec)
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

    def query(self, item: Item) -> QueryTokens:
        """Return an image's own tokens, pooled as the codec pools but not quantised, with weights by rarity.

        Raises MediaError for tokens that are not finite.
        """
        import torch

        codec = self.set.codec
        tokens = self.maker.visual_tokens([item])[0]
        if not torch.isfinite(tokens.features).all():
            raise MediaError("non-finite", "the model's vision tower gave NaN or infinity for this image")
        tokens = Codec(codec.cells).round_trip(tokens) if codec.cells else tokens
        rows = unit_rows(tokens.features)
        rows = rows if codec.codebook is None else codec.codebook.rotate(rows, 0)
        asked = QueryTokens(rows, grids(tokens.layout), None)
        if not self.rarity.records:
            return asked
        rare = rarity(self._best(asked, self.rarity.records)) * (rows.abs().amax(1) > 0)
        return replace(asked, weights=weights_of(rare, self.power))

    def scores(self, query: QueryTokens, ids: Sequence[str]) -> TokenScores:
        """Return the score of each of `ids` that has usable tokens."""
        records, counts = self._records(ids)
        known = [(id_, found) for id_, found in records.items() if not isinstance(found, str)]
        if not known or query.weights is None:
            return TokenScores({}, counts)
        found = scores_of(self._best(query, [one for _, one in known]), query.weights)
        return TokenScores(dict(zip([id_ for id_, _ in known], found.tolist(), strict=True)), counts)

    def cosines(self, query: QueryTokens, id_: str) -> tuple[Tensor, Grids] | None:
        """Return the cosines [T, q] of one item's tokens with the query's, and their grids; None without tokens."""
        found = self._records([id_])[0][id_]
        if isinstance(found, str):
            return None
        return next(self._cosines(query, [found]))[1][0], grids(self.set.codec.shown(found[1]))

    def settings(self) -> dict[str, Any]:
        """Return the token set, the power and the sample for a run's manifest."""
        kept = {name: self.set.entry[name] for name in ("tokens_key", "codec", "codebook_sha256")}
        return {**kept, "power": self.power, "rarity": self.rarity.record()}

    def _best(self, query: QueryTokens, found: Sequence[Opened]) -> Tensor:
        """Return [n, q]: the cosine of each query token with its best match in each image."""
        import torch

        best = query.rows.new_zeros(len(found), len(query.rows))
        most = max(1, PORTION // max(1, len(query.rows) * found[0][0].header.kept))
        for start in range(0, len(found), most):
            for places, cosines in self._cosines(query, found[start : start + most]):
                best[torch.tensor(places) + start] = cosines.amax(1)
        return best

    def _cosines(self, query: QueryTokens, found: Sequence[Opened]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the places of images of one layout, and their cosines [n, T, q] after the neighbours' vote."""
        import torch

        codec = self.set.codec
        device = query.rows.device
        cosines = pack(codec, [record for record, _ in found], device).cosines(query.rows)
        starts = list(accumulate((record.header.kept for record, _ in found), initial=0))
        for layout, places in _by_layout(found).items():
            if len(places) == len(found) and found[0][0].header.kept * len(found) == len(places) * _tokens(
                codec, layout
            ):
                part = cosines.view(len(places), -1, len(query.rows))
            else:
                rows = [torch.from_numpy(starts[n] + codec.rows(found[n][0], layout)) for n in places]
                part = cosines[torch.stack(rows).to(device)]
            yield places, agreed(part, grids(codec.shown(layout)), query.grids)

    def _records(self, ids: Sequence[str]) -> tuple[dict[str, Opened | str], Counter[str]]:
        """Return the opened codes of each id, or "missing" or "damaged", and counts of all three."""
        with self._lock:
            records = self._cache.get(ids, self.table.tokens_version)
        fresh = dict(_opened(self.table, self.set, [id_ for id_ in ids if id_ not in records]))
        with self._lock:
            self._cache.put(fresh)
        records |= fresh
        counts = Counter(found if isinstance(found, str) else "matched" for found in records.values())
        return {id_: records[id_] for id_ in ids}, counts


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


def _opened(table: TableReader, kept: TokenSet, ids: Sequence[str]) -> Iterator[tuple[str, Opened | str]]:
    """Yield each id with its codes, or "missing" or "damaged"."""
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
