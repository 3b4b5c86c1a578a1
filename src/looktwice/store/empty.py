"""Say why a filter finds nothing: which of its conditions no item passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from looktwice.store.conditions import Where, conditions, parse_where
from looktwice.store.filters import split_and

MOST = 8
"""Most conditions that a sentence lists."""


def why_empty(count: Callable[[Where | None], int], where: Where) -> str:
    """Return one sentence about a filter that no item passes; "" if some items do. `count` counts matching items."""
    if count(where):
        return ""
    where = parse_where(where)
    if isinstance(where, Mapping):
        parts: dict[str, Where] = {str(one): {one.column: {one.operator: one.value}} for one in conditions(where)}
    else:
        parts = {part: part for part in split_and(where)}
    found = {name: count(part) for name, part in list(parts.items())[:MOST]}
    if alone := [name for name, n in found.items() if not n]:
        return f"0 of {count(None):,} items pass: {'; '.join(alone)}."
    each = "; ".join(f"{name}: {n:,} item{'s' * (n != 1)}" for name, n in found.items())
    return f"No item passes all conditions together ({each})."
