"""Estimate a collection's cost in advance: bytes, FLOP, pairs per second and hours, from config.json alone.

Formulas and symbols are in docs/explanation/performance.md. Everything is computed, nothing measured. `flops` is the
matmul rate that the device reaches on large matrices, and `mfu` the share of it that a run achieves (0.4 is a plan,
0.55 very good).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looktwice.codecs import Codec, layout_to_json, parse_codec, token_count
from looktwice.codecs.pq import PQ
from looktwice.errors import UsageError
from looktwice.estimate.shapes import Shape, image_layout, load_config, patches, shape
from looktwice.models.decoders import Config
from looktwice.types import Block, Layout, Newline, TextIds

H100 = 790e12
"""FLOP/s of dense bf16 matmul that a card of the H100 class sustains; its data sheet says 989e12."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text tokens of the prompt: before the query's image, between the two, after the candidate's."""

    before: int = 20
    between: int = 10
    after: int = 140


@dataclass(frozen=True, slots=True)
class Estimate:
    """All numbers of one estimate. FLOP are per image or per pair, bytes per image unless they say total."""

    family: str
    codec: str
    items: int
    layout: str
    tokens: int
    candidate_tokens: int
    bytes_per_item: int
    bytes_uncompressed: int
    bytes_total: int
    codebook_bytes: int
    language_weights: int
    vision_weights: int
    tower_flop: float
    naive_pair_flop: float
    pair_flop: float
    k: int
    flops: float
    mfu: float
    pairs_per_second_ceiling: float
    pairs_per_second: float
    query_seconds: float
    index_hours: float
    kv_bytes_per_token: int

    def record(self) -> dict[str, Any]:
        """Return the estimate as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PairCost:
    """FLOP of one pair at the stages of docs/explanation/performance.md, each with the savings of those before it."""

    naive: float
    last_position: float
    stored_tokens: float
    prefix_kv: float


def pair_cost(model: Shape, query: int, candidate: int, views: list[int], text: Text, k: int) -> PairCost:
    """Cost one pair: `query` and `candidate` tokens in the language model, `views` patches in the tower, k a query."""
    prefix = text.before + query + text.between
    new = candidate + text.after
    tower = sum(map(model.tower, views))
    whole = model.forward(prefix + new)
    return PairCost(
        naive=2 * tower + whole + model.head(prefix + new),
        last_position=2 * tower + whole + model.head(),
        stored_tokens=tower / k + whole + model.head(),
        prefix_kv=tower / k + model.forward(prefix) / k + model.forward(new, prefix) + model.head(),
    )


def estimate(
    model: str | Path | Config,
    *,
    items: int,
    codec: str | Codec = "none",
    size: tuple[int, int] = (1024, 768),
    resolution: int | None = None,
    max_tiles: int | None = None,
    k: int = 100,
    text: Text | None = None,
    flops: float = H100,
    mfu: float = 0.4,
) -> Estimate:
    """Estimate an index of `items` images of `size` (width, height) pixels and its queries of `k` candidates.

    `model` is a config.json (mapping, file, folder) or the name of a public model whose shape is bundled. Raises
    UsageError for impossible numbers, Mismatch for a codec that does not divide the model's width.
    """
    if items < 0 or k < 1 or not 0 < mfu <= 1 or not flops > 0 or min(size) < 1:
        raise UsageError("An estimate needs items ≥ 0, k ≥ 1, flops > 0, mfu in (0, 1] and size at least 1 × 1.")
    sizes = shape(load_config(model))
    _check_budget(sizes, resolution, max_tiles)
    codec = parse_codec(codec) if isinstance(codec, str) else codec
    layout = image_layout(sizes, size, resolution=resolution, max_tiles=max_tiles)
    views = patches(sizes, layout)
    candidate = language_tokens(codec.shown(layout))
    cost = pair_cost(sizes, language_tokens(layout), candidate, views, text or Text(), k)
    per_item = codec.image_bytes(layout, sizes.width, sizes.levels)
    ceiling = flops / cost.prefix_kv
    tower = sum(map(sizes.tower, views))
    return Estimate(
        family=sizes.family,
        codec=str(codec),
        items=items,
        layout=layout_to_json(layout),
        tokens=token_count(layout),
        candidate_tokens=candidate,
        bytes_per_item=per_item,
        bytes_uncompressed=parse_codec("none").image_bytes(layout, sizes.width, sizes.levels),
        bytes_total=items * per_item,
        codebook_bytes=codebook_bytes(codec, sizes.width, sizes.levels),
        language_weights=sizes.weights,
        vision_weights=sizes.vision_weights,
        tower_flop=tower,
        naive_pair_flop=cost.naive,
        pair_flop=cost.prefix_kv,
        k=k,
        flops=flops,
        mfu=mfu,
        pairs_per_second_ceiling=ceiling,
        pairs_per_second=mfu * ceiling,
        query_seconds=k * cost.prefix_kv / (mfu * flops),
        index_hours=items * tower / (mfu * flops) / 3600,
        kv_bytes_per_token=sizes.kv_bytes_per_token,
    )


def _check_budget(sizes: Shape, resolution: int | None, max_tiles: int | None) -> None:
    if (resolution is not None and resolution < 1) or (max_tiles is not None and max_tiles < 1):
        raise UsageError("resolution and max_tiles must be ≥ 1; leave them out for the model's own.")
    if (resolution or max_tiles) and sizes.family.startswith("gemma"):
        raise UsageError("This model scales every image to its own size; leave resolution and max_tiles out.")
    if resolution is not None and sizes.tile is not None:
        raise UsageError("This model cuts images into tiles of one size; set max_tiles instead of resolution.")
    if max_tiles is not None and sizes.tile is None:
        raise UsageError("This model shows an image whole, without tiles; set resolution instead of max_tiles.")


def language_tokens(layout: Layout) -> int:
    """Return the tokens that an image occupies in the language model: visual ones, newlines and text markers."""
    return sum(_occupied(part) for part in layout)


def _occupied(part: Block | Newline | TextIds) -> int:
    if isinstance(part, Block):
        return part.h * (part.w + part.newlines)
    return len(part.ids) if isinstance(part, TextIds) else 1


def codebook_bytes(codec: Codec, width: int, levels: int) -> int:
    """Return the bytes of the codebook: float32 centroids and, for OPQ, a rotation, one of each per stream."""
    if not isinstance(codec.quantiser, PQ):
        return 0
    kept = codec.quantiser.late or width
    matrix = kept * width if codec.quantiser.projected else 0
    centroids = kept << codec.quantiser.bits
    return 4 * (1 + levels) * (centroids + matrix)
