"""Add columns to a table that has rows: metadata keys that become something to filter on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from looktwice.errors import UsageError
from looktwice.store.forged import read_metadata
from looktwice.store.lance import retry
from looktwice.store.schema import check_columns, column_fields, column_values, unfit

_READ, _COMMIT = 4096, 100_000


def new_columns(columns: Mapping[str, type], known: Mapping[str, type]) -> dict[str, type]:
    """Return those of `columns` that a table lacks. Raises UsageError for unusable names and for another type."""
    for name, kind in columns.items():
        if known.get(name, kind) is not kind:
            raise UsageError(
                f"The column {name!r} exists already, with the type {known[name].__name__}; choose another name."
            )
    check_columns({**known, **columns})
    return {name: kind for name, kind in columns.items() if name not in known}


def create_columns(items: Any, columns: Mapping[str, type]) -> None:
    """Add columns without values, in one commit."""
    retry(lambda: items.add_columns(column_fields(columns)))


def fill_columns(items: Any, columns: Mapping[str, type]) -> dict[str, int]:
    """Write the values of stored metadata into columns, in commits of 100,000 rows; return how many did not fit."""
    misfits: Counter[str] = Counter(dict.fromkeys(columns, 0))
    changed: list[dict[str, Any]] = []
    for batch in items.search().select(["id", "metadata", *columns]).to_batches(_READ):
        for row in batch.to_pylist():
            metadata = read_metadata(row["metadata"])
            misfits.update(unfit(metadata, columns))
            values = column_values(metadata, columns)
            if any(row[name] != value for name, value in values.items()):
                changed.append({"id": row["id"], **values})
        if len(changed) >= _COMMIT:
            _write(items, columns, changed)
            changed = []
    _write(items, columns, changed)
    return dict(misfits)


def _write(items: Any, columns: Mapping[str, type], rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    if rows:
        schema = pa.schema([pa.field("id", pa.string(), nullable=False), *column_fields(columns)])
        update = items.merge_insert("id").when_matched_update_all()
        retry(lambda: update.execute(pa.Table.from_pylist(rows, schema=schema)))
