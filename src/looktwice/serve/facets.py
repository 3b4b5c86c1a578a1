"""Count the values of a table's columns, for the filters of the page. One count per version of a table is kept."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

from looktwice.store import TableReader

MOST_VALUES = 30
FEW_NUMBERS = 12
"""A number column with more distinct values becomes a range, not a list of boxes."""

MOST_DISTINCT = 1000
"""A text column with more distinct values is searched in, not listed."""

_KINDS = {bool: "bool", int: "number", float: "number", str: "text"}
_kept: WeakKeyDictionary[TableReader, list[dict[str, Any]]] = WeakKeyDictionary()
_lock = threading.Lock()


def facets(table: TableReader) -> list[dict[str, Any]]:
    """Return each column's kind, its most common values with counts, its range, and how many items lack it."""
    with _lock:  # two requests must not count the same version twice
        if table not in _kept:
            _kept[table] = _count(table)
        return _kept[table]


def _count(table: TableReader) -> list[dict[str, Any]]:
    columns = dict(table.columns)
    if not columns:
        return []
    counts: dict[str, Counter[Any]] = {name: Counter() for name in columns}
    for row in table.rows(list(columns)):
        for name, counter in counts.items():
            counter[row[name]] += 1
    return [_facet(name, kind, counts[name]) for name, kind in columns.items()]


def _facet(name: str, kind: type, counter: Counter[Any]) -> dict[str, Any]:
    missing = counter.pop(None, 0)
    numbers = [value for value in counter if _KINDS.get(kind) == "number" and value == value]
    common = sorted(counter.items(), key=lambda pair: (-pair[1], str(pair[0])))[:MOST_VALUES]
    most = FEW_NUMBERS if _KINDS.get(kind) == "number" else MOST_DISTINCT
    values = [{"value": value, "count": n} for value, n in common] if len(counter) <= most else None
    return {
        "name": name,
        "type": _KINDS.get(kind, "text"),
        "values": values,
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "missing": missing,
        "distinct": len(counter),
    }
