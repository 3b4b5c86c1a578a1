"""Add what the table says of its items to hits: uri, text and metadata, looked up when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from looktwice.types import Hit

if TYPE_CHECKING:
    from looktwice.store import TableReader

Describe: TypeAlias = Callable[[Sequence[Hit]], "list[Hit]"]


def describe_from(table: TableReader) -> Describe:
    """Return a function that adds uri, text and metadata to hits; a hit that has left the table stays as it is."""
    from looktwice.store import read_metadata

    def describe(hits: Sequence[Hit]) -> list[Hit]:
        rows = table.lookup([hit.id for hit in hits], ["id", "uri", "text", "metadata"]) if hits else []
        found = {row.pop("id"): {**row, "metadata": read_metadata(row["metadata"])} for row in rows}
        return [replace(hit, **found.get(hit.id, {})) for hit in hits]

    return describe
