"""Refuse what looktwice would not have written into a table: columns of other types, gaps, metadata that is not JSON.

A table may be a stranger's, or edited with LanceDB.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from looktwice.errors import Damaged, MediaError
from looktwice.sources.jsonl import parse_object

_NEVER_NULL = ("id", "uri", "root", "sha256", "width", "height", "metadata", "vector")


def demand_schema(place: object, found: Any, expected: Any, more: Collection[Any] = ()) -> None:
    """Raise Damaged unless a schema has the columns of another one, and beside them only some of the types `more`."""
    types = {field.name: field.type for field in found}
    wrong = [field.name for field in expected if types.get(field.name) != field.type]
    wrong += [name for name in types.keys() - set(expected.names) if types[name] not in more]
    if wrong:
        raise Damaged(
            f"The column {wrong[0]!r} of {place} is missing or of another type; restore the table from a copy, or "
            "index into a new one."
        )


def demand_whole(found: Any) -> Any:
    """Return rows of the items (Arrow). Raises Damaged if one lacks a value that every item has."""
    for name in _NEVER_NULL:
        if name in found.schema.names and found.column(name).null_count:
            raise Damaged(f"Items of this table have no {name}; restore it from a copy, or index into a new table.")
    return found


def read_metadata(text: str) -> dict[str, Any]:
    """Return the metadata of a stored item. Raises Damaged if it is not a JSON object."""
    try:
        return parse_object(text.encode("utf-8", "surrogatepass"))
    except MediaError as error:
        raise Damaged(f"The metadata of a stored item cannot be used ({error.detail}); index it again.") from None
