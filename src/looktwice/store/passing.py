"""Filter rows that are in no table yet, in the language of a table's own filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.store.conditions import Where
from looktwice.store.lance import connect, filtering, plain_errors
from looktwice.store.schema import column_fields

_PLACE = "_place"  # no column may be called so


def passing(rows: Sequence[Mapping[str, Any]], where: Where, columns: Mapping[str, type]) -> set[int]:
    """Return the places of the rows that pass a filter. `columns` are those of the rows.

    Raises UsageError for an invalid filter and UnknownName for an unknown column, without rows, too.

    >>> passing([{"year": 1890}, {"year": 1950}, {"year": None}], "year > 1900", {"year": int})
    {1}
    """
    import pyarrow as pa

    schema = pa.schema([pa.field(_PLACE, pa.int64()), *column_fields(columns)])
    data = pa.Table.from_pylist([{**row, _PLACE: place} for place, row in enumerate(rows)], schema=schema)
    with plain_errors("memory", "filtering items"), filtering(where, columns) as sql:
        found = connect(None).create_table("rows", data).search().where(sql).select([_PLACE])
        return set(found.to_arrow()[_PLACE].to_pylist())
