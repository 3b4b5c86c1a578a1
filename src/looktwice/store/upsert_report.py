"""Hold what `Table.upsert` reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UpsertFailure:
    """An item that was not written: its id ("" if it has none), a fixed word and a sentence."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """Counts of items of one upsert.

    `inserted`, `updated`, `unchanged` and `failed` add up to all items. `metadata_only` of the updated ones kept their
    vectors; `encoded` items went through the encoder (the same bytes go once). `columns` were new. `unfit`, by column,
    counts values of another type than their column's, which are null in it.
    """

    inserted: int = 0
    updated: int = 0
    metadata_only: int = 0
    unchanged: int = 0
    failed: int = 0
    encoded: int = 0
    failures: tuple[UpsertFailure, ...] = ()
    columns: tuple[str, ...] = ()
    unfit: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
