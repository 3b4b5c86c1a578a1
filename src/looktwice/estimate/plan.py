"""Plan a collection in a bucket: bytes, requests, memory of a searcher, hours of machines, and money by stated prices.

Everything is computed from sizes and rates that the caller states; the defaults say where they come from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from looktwice.errors import UsageError
from looktwice.store.ann import bits_for
from looktwice.store.matrix import MOST_BYTES, size_of

ROW_BYTES = 220
"""An item without its vector, as measured on tables of file names of 20 characters and little metadata."""

PREVIEW_BYTES = 24_000
"""A WebP of 512 pixels, about."""

COMMIT_ROWS, COMMIT_PUTS = 4096, 9
"""Rows of one commit of `index`, and the writes that it takes: three each for items, previews and ledger."""

SEARCH_REQUESTS = 10
"""Requests of a search and its look-up, once the table is open; see benchmarks/scale.py."""

CODE_BYTES = 17
"""What an index keeps for a row beside its bits: row id, factors, place."""

ASSIGN_FLOPS, ROW_SECONDS = 5.5e9, 7.5e-5
"""Building on one core: rate of assigning vectors to partitions, and seconds for everything else, with measuring."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Money, in one currency: list prices of a large provider in 2026, to be replaced by your own."""

    gigabyte_month: float = 0.023
    puts_1000: float = 0.005
    gets_1000: float = 0.0004
    gpu_hour: float = 2.5
    core_hour: float = 0.05


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines: devices that encode, cores that build the index, and the images that a device encodes a second."""

    gpus: int = 1
    cores: int = 8
    images_per_second: float = 1000.0
    searches: float = 1e6


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """The plan of one collection. Bytes are totals; `money` by part, storage per month."""

    items: int
    bytes: dict[str, int]
    requests: dict[str, int]
    searcher_bytes: int
    hours: dict[str, float]
    money: dict[str, float]
    prices: Prices = field(default_factory=Prices)

    def record(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def plan(
    items: int,
    *,
    dim: int = 512,
    token_bytes: int = 0,
    tower_hours: float = 0.0,
    previews: bool = True,
    machines: Machines | None = None,
    prices: Prices | None = None,
) -> StoragePlan:
    """Plan a table of `items` images with vectors of `dim` numbers, and `token_bytes` of visual tokens an image.

    `tower_hours` are hours of one device for the tokens, as `estimate` computes them.
    """
    if items < 1 or dim < 1:
        raise UsageError(f"A plan needs items and dim of 1 or more, not {items} and {dim}; change --items or --dim.")
    have, price = machines or Machines(), prices or Prices()
    sizes = {
        "items": items * ROW_BYTES,
        "vectors": items * dim * 2,
        "index": items * code_bytes(items, dim),
        "previews": items * PREVIEW_BYTES if previews else 0,
        "tokens": items * token_bytes,
    }
    sizes["total"] = sum(sizes.values())
    commits = math.ceil(items / COMMIT_ROWS)
    requests = {
        "writes": commits * COMMIT_PUTS + math.ceil(items / 256) * (3 if token_bytes else 0),
        "images_read": items * (2 if token_bytes else 1),
        "searches": int(have.searches * SEARCH_REQUESTS),
    }
    hours = {
        "encoder": items / have.images_per_second / have.gpus / 3600,
        "tokens": tower_hours / have.gpus,
        "index": index_core_hours(items, dim) / have.cores,
    }
    money = _money(sizes, requests, hours, have, price)
    return StoragePlan(items, sizes, requests, searcher_bytes(items, dim), hours, money, price)


def code_bytes(items: int, dim: int) -> int:
    """Return the bytes of one row in the index of a table of `items` rows."""
    return dim * bits_for(items, dim) // 8 + CODE_BYTES


def searcher_bytes(items: int, dim: int) -> int:
    """Return the memory of a process that searches: vectors of a small table, else codes and centroids."""
    partitions = math.isqrt(items) // 2
    exact = size_of(items, dim)
    return exact if exact <= MOST_BYTES else items * code_bytes(items, dim) + partitions * dim * 4


def index_core_hours(items: int, dim: int) -> float:
    """Return hours of one core to build the index: each vector is compared with each of √n / 2 centroids."""
    partitions = math.isqrt(items) // 2
    return (2 * items * partitions * dim / ASSIGN_FLOPS + items * ROW_SECONDS) / 3600


def _money(
    sizes: dict[str, int], requests: dict[str, int], hours: dict[str, float], have: Machines, price: Prices
) -> dict[str, float]:
    devices = (hours["encoder"] + hours["tokens"]) * have.gpus * price.gpu_hour
    spent = {
        "storage_month": sizes["total"] / 1e9 * price.gigabyte_month,
        "writes": requests["writes"] / 1000 * price.puts_1000,
        "images_read": requests["images_read"] / 1000 * price.gets_1000,
        "searches": requests["searches"] / 1000 * price.gets_1000,
        "machines": devices + hours["index"] * have.cores * price.core_hour,
    }
    return {name: round(value, 2) for name, value in spent.items()}
