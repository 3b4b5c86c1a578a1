"""Compile a filter of plain data, such as `{"price": {"<": 20}, "category": "shoes"}`, into one SQL expression.

    {column: value}              equal; a list: one of them; None: without a value
    {column: {operator: value}}  = != < <= > >= in like; several operators must all hold

All columns must hold. Names must be columns of the table, and values must be of the column's type, so that nothing of
a value is ever read as SQL. A row without a value matches `None` only. `like` takes % for any characters and _ for one;
a backslash before them takes them as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

from looktwice.checked import read_json
from looktwice.errors import UnknownName, UsageError
from looktwice.store.filters import quote
from looktwice.types import text_is_utf8

Where: TypeAlias = "str | Mapping[str, Any]"
"""A filter: SQL text, JSON text that begins with {, or a dict."""

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in", "like")
DECLARE = (
    "To filter on a metadata key, make it a column: --column KEY:TYPE of looktwice index, "
    "or: looktwice columns TABLE add KEY:TYPE."
)
LOW = -(2**63)


class Int32(int):
    """The type of width and height, whose values are compared within 32 bits."""


class Clause(NamedTuple):
    """One condition of a filter, on one column."""

    column: str
    operator: str
    value: Any

    def __str__(self) -> str:
        plain = list(self.value) if isinstance(self.value, tuple | set | frozenset) else _plain(self.value)
        return f"{self.column} {self.operator} {json.dumps(plain, ensure_ascii=False, default=str)}"


def parse_where(where: Where) -> Where:
    """Return the dict that a JSON text holds; SQL text and dicts are returned unchanged. Raises UsageError."""
    if not isinstance(where, str) or not where.lstrip().startswith("{"):
        return where
    try:
        found: Mapping[str, Any] = read_json(where)
    except ValueError as error:
        raise UsageError(f"The filter {where[:80]!r} is not valid JSON ({error}); correct it.") from None
    return found


def compile_where(where: Mapping[str, Any], columns: Mapping[str, type]) -> str:
    """Return a dict filter as one SQL expression; `columns` are the names and types that it may use.

    Raises UnknownName for an unknown column or operator, UsageError for a value of another type.

    >>> print(compile_where({"price": {"<": 20}, "shop": ["it's", None]}, {"price": float, "shop": str}))
    `price` < 20.0 AND (`shop` IS NULL OR `shop` IN ('it''s'))
    """
    return " AND ".join(to_sql(one, columns) for one in conditions(where))


def conditions(where: Mapping[str, Any]) -> list[Clause]:
    """Return the conditions of a dict filter. Raises UsageError if there are none, UnknownName for an operator."""
    found = [one for column, asked in where.items() for one in _conditions(column, asked)]
    if not found:
        raise UsageError('The filter is empty; leave it out or write one such as: {"year": {">": 2020}}')
    return found


def to_sql(condition: Clause, columns: Mapping[str, type]) -> str:
    """Return one condition as SQL. Raises like `compile_where`."""
    column, operator, value = condition
    if column not in columns:
        raise UnknownName("column", column, columns, DECLARE)
    kind, name = columns[column], f"`{column}`"
    value = _plain(value)
    if value is None and operator in ("=", "!="):
        return f"{name} IS {'NOT ' if operator == '!=' else ''}NULL"
    if operator == "in":
        return _one_of(name, kind, condition)
    if operator == "like" and kind is not str:
        raise _unfit(condition, f"like works on text, but the column holds {kind.__name__}")
    if kind is bool and operator not in ("=", "!="):
        raise _unfit(condition, "a bool is only equal or not")
    value = _typed(condition, value, kind)
    if kind in (int, Int32):
        return _whole(name, operator, value, LOW >> (32 * (kind is Int32)))
    return f"{name} {operator.upper()} {_literal(value)}"


def _conditions(column: Any, asked: Any) -> Iterator[Clause]:
    if not isinstance(column, str):
        raise UsageError(f"A filter names columns by text, not by {column!r}; write the column's name.")
    if not isinstance(asked, Mapping):
        many = isinstance(asked, list | tuple | set | frozenset)
        yield Clause(column, "in" if many else "=", asked)
        return
    if not asked:
        raise UsageError(f'The condition on {column!r} is empty; write one such as {{"{column}": {{"<": 20}}}}.')
    for operator, value in asked.items():
        if operator not in OPERATORS:
            raise UnknownName("operator", str(operator), OPERATORS)
        yield Clause(column, operator, value)


def _one_of(name: str, kind: type, condition: Clause) -> str:
    if isinstance(condition.value, str) or not isinstance(condition.value, Sequence | set | frozenset):
        raise _unfit(condition, "in takes a list")
    values = [_plain(value) for value in condition.value]
    typed = [_typed(condition, value, kind) for value in values if value is not None]
    parts = [f"{name} IS NULL"] if None in values else []
    if kind in (int, Int32):
        low = LOW >> (32 * (kind is Int32))
        parts += [_whole(name, "=", low, low)] if low in typed else []
        typed = [int(value) for value in typed if value == int(value) and low < value < -low]
    if typed:
        parts.append(f"{name} IN ({', '.join(map(_literal, typed))})")
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})" if parts else "false"


def _typed(condition: Clause, value: Any, kind: type) -> Any:
    """Return a value in the type of its column; an int column also compares with fractions. Raises UsageError."""
    if kind is str and isinstance(value, str) and text_is_utf8(value):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, Int32, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(condition, value, kind)
    if kind is datetime and isinstance(value, str | datetime):
        return _to_time(condition, value)
    wanted = "valid UTF-8" if kind is str and isinstance(value, str) else kind.__name__
    raise _unfit(condition, f"the column holds {wanted}, not {type(value).__name__}")


def _number(condition: Clause, value: float, kind: type) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise _unfit(condition, "the number is too large") from None
    if not math.isfinite(number):
        raise _unfit(condition, "it is not a finite number")
    return number if kind is float else value


def _to_time(condition: Clause, value: str | datetime) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise _unfit(condition, "the time is not in the form 2024-06-01T12:00:00") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _whole(name: str, operator: str, value: float, low: int) -> str:
    """Compare a column of whole numbers from `low` with any number; SQL has no literal for `low` or anything beyond."""
    known, high = f"{name} IS NOT NULL", -low - 1
    if operator in ("<", "<="):
        most = math.ceil(value) - 1 if operator == "<" else math.floor(value)
        return known if most >= high else f"{name} < {most + 1}" if most >= low else "false"
    if operator in (">", ">="):
        least = math.floor(value) + 1 if operator == ">" else math.ceil(value)
        return known if least <= low else f"{name} >= {least}" if least <= high else "false"
    if value != int(value) or not low <= value <= high:
        return "false" if operator == "=" else known
    if value == low:
        return f"{name} {'<' if operator == '=' else '>='} {low + 1}"
    return f"{name} {operator} {int(value)}"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return f"timestamp '{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}'"
    return repr(value)


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's own number."""
    item: Callable[[], Any] | None = getattr(value, "item", None)
    return value if item is None or getattr(value, "ndim", False) else item()


def _unfit(condition: Clause, why: str) -> UsageError:
    shown = str(condition)
    return UsageError(f"The condition {shown[:200]} cannot be used: {why}; correct the filter.")
