"""Compare an image's visual tokens with the stored ones of many items, from their codes.

This module joins `late_interaction`, `codecs` and a table; codes that were read are kept in memory for later queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from looktwice.codecs import Codec, CodecRecord, layout_from_json
from looktwice.codecs.int8 import SCALE_BYTES, Int8
from looktwice.codecs.pq import PQ, unpack_codes
from looktwice.errors import MediaError, Mismatch, StoreError
from looktwice.late_interaction import Packed, PackedInt8, PackedProducts, PackedRows, match, unit_rows, weights_of
from looktwice.late_interaction.maxsim import POWER
from looktwice.score import TokenMaker
from looktwice.token_index.rarity import Rarity, rarity_of
from looktwice.token_index.sets import TokenSet, open_set
from looktwice.types import Item, Layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from looktwice.store import TableReader

CACHE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class QueryTokens:
    """A query's tokens as unit rows [q, d] in the space of the codes, their layout, and their weights [q].

    `weights` None: all tokens are common, so that no match tells anything.
    """

    rows: Tensor
    layout: Layout
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
        """Return an image's own tokens, uncompressed, with weights by rarity.

        Raises MediaError for tokens that are not finite.
        """
        import torch

        tokens = self.maker.visual_tokens([item])[0]
        features = tokens.features.float()
        if not torch.isfinite(features).all():
            raise MediaError("non-finite", "the model's vision tower gave NaN or infinity for this image")
        rows = unit_rows(features)
        book = self.set.codec.codebook
        rows = rows if book is None else book.rotate(rows, 0)
        return QueryTokens(rows, tokens.layout, weights_of(self.rarity.of(rows, self._pack), self.power))

    def scores(self, query: QueryTokens, ids: Sequence[str]) -> TokenScores:
        """Return the score of each of `ids` that has usable tokens."""
        records, counts = self._records(ids)
        known = [(id_, record) for id_, record in records.items() if record is not None]
        if not known or query.weights is None:
            return TokenScores({}, counts)
        packed = self._pack([record for _, record in known])
        found = match(query.rows, packed, query.weights).scores
        return TokenScores(dict(zip([id_ for id_, _ in known], found.tolist(), strict=True)), counts)

    def cosines(self, query: QueryTokens, id_: str) -> tuple[Tensor, Layout] | None:
        """Return the cosines [T, q] of one item's stored tokens with the query's, and the layout; None without them."""
        records, _ = self._records([id_])
        record = records.get(id_)
        row = self.table.read_codes([id_], self.set.key)[0]
        if record is None or row is None:
            return None
        layout = layout_from_json(row.layout)
        return self._pack([record]).cosines(query.rows).cpu()[self.set.codec.rows(record, layout)], layout

    def settings(self) -> dict[str, Any]:
        """Return the token set, the power and the sample for a run's manifest."""
        kept = {name: self.set.entry[name] for name in ("tokens_key", "codec", "codebook_sha256")}
        return {**kept, "power": self.power, "rarity": self.rarity.record()}

    def _records(self, ids: Sequence[str]) -> tuple[dict[str, CodecRecord | None], Counter[str]]:
        """Return the opened codes of each id, None for missing and damaged ones, and counts of all three."""
        with self._lock:
            records = self._cache.get(ids, self.table.tokens_version)
        unread = [id_ for id_ in ids if id_ not in records]
        fresh = dict(_opened(self.table, self.set, unread))
        with self._lock:
            self._cache.put(fresh)
        records |= fresh
        counts = Counter("matched" if isinstance(found, CodecRecord) else found for found in records.values())
        return {id_: r if isinstance(r, CodecRecord) else None for id_, r in records.items()}, counts

    def _pack(self, records: Sequence[CodecRecord]) -> Packed:
        return pack(self.set.codec, records, self.maker.placement()[0])


def pack(codec: Codec, records: Sequence[CodecRecord], device: torch.device | str) -> Packed:
    """Join the features' codes of many images; DeepStack levels are left out."""
    import numpy as np
    import torch

    lengths = torch.tensor([record.codes.shape[1] for record in records])
    if isinstance(codec.quantiser, PQ | Int8):
        codes = torch.from_numpy(np.concatenate([record.codes[0] for record in records])).to(device)
        if isinstance(codec.quantiser, Int8):
            return PackedInt8(lengths, codes[:, SCALE_BYTES:].view(torch.int8))
        assert codec.codebook is not None
        centroids = codec.codebook.table(codes.device, torch.float32)[0]
        return PackedProducts(lengths, unpack_codes(codes, len(centroids), codec.quantiser.bits), centroids)
    rows = [torch.from_numpy(record.codes[0].copy()).view(record.header.torch_dtype) for record in records]
    return PackedRows(lengths, torch.cat([one.float() for one in rows]).to(device))


def _opened(table: TableReader, kept: TokenSet, ids: Sequence[str]) -> Iterator[tuple[str, CodecRecord | str]]:
    """Yield each id with its codes, or "missing" or "damaged"."""
    for id_, row in zip(ids, table.read_codes(ids, kept.key) if ids else [], strict=True):
        if row is None:
            yield id_, "missing"
            continue
        try:
            yield id_, kept.codec.open(row.codes, layout_from_json(row.layout))
        except (StoreError, Mismatch):
            yield id_, "damaged"


class _Cache:
    """The opened codes of one version of a table; the oldest go first when `room` bytes are full."""

    def __init__(self, room: int) -> None:
        self._room, self._bytes, self._version = room, 0, -1
        self._kept: dict[str, CodecRecord | str] = {}

    def get(self, ids: Sequence[str], version: int) -> dict[str, CodecRecord | str]:
        if version != self._version:
            self._kept, self._bytes, self._version = {}, 0, version
        return {id_: self._kept[id_] for id_ in ids if id_ in self._kept}

    def put(self, fresh: Mapping[str, CodecRecord | str]) -> None:
        for id_, found in fresh.items():
            if id_ not in self._kept:
                self._kept[id_] = found
                self._bytes += _size(found)
        while self._bytes > self._room:
            self._bytes -= _size(self._kept.pop(next(iter(self._kept))))


def _size(found: CodecRecord | str) -> int:
    return 200 + (found.codes.nbytes if isinstance(found, CodecRecord) else 0)
