"""JSON of other people, compared with a table of types before use, and our own values as JSON's types."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Kind: TypeAlias = Any
"""A type: `str`, `int`, `float` (finite; also whole), `dict`, `None`, a tuple of alternatives, `[kind]` for a list, or
{key: kind}. A key that ends in ? is optional, and other keys may hold anything."""


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError for invalid JSON, also for NaN and infinities."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def demand(value: object, kind: Kind, name: str) -> None:
    """Raise ValueError, with the path of the value from `name` on, if a value is not of a kind."""
    if isinstance(kind, list):
        _demand_type(value, list, name)
        assert isinstance(value, list)
        for place, one in enumerate(value):
            demand(one, kind[0], f"{name}[{place}]")
    elif isinstance(kind, Mapping):
        _demand_keys(value, kind, name)
    else:
        _demand_type(value, kind, name)


def finite(value: Any) -> float | None:
    """Return a number, or None if it is unknown (NaN) or infinite: JSON has neither."""
    number = float(value)
    return number if math.isfinite(number) else None


def plain(value: Any, text: Callable[[Any], str] = str) -> Any:
    """Convert to JSON's own types: NaN and infinities become null, NumPy scalars numbers; `text` gives all others."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry, text) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, text) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return finite(value)
    return value if value is None or isinstance(value, bool | int) else text(value)


def _demand_keys(value: object, kinds: Mapping[str, Kind], name: str) -> None:
    _demand_type(value, dict, name)
    assert isinstance(value, dict)
    for key, kind in kinds.items():
        if key.removesuffix("?") in value:
            demand(value[key.removesuffix("?")], kind, f"{name}.{key.removesuffix('?')}")
        elif not key.endswith("?"):
            raise ValueError(f"{name} has no {key!r}")


def _demand_type(value: object, kind: Kind, name: str) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not any(_is(value, one) for one in kinds):
        wanted = " or ".join("null" if one is None else one.__name__ for one in kinds)
        raise ValueError(f"{name} is {str(value)[:40]!r} but must be {wanted}")


def _is(value: object, kind: type | None) -> bool:
    if kind is None or value is None:
        return kind is value
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)
    if isinstance(value, int) and kind is int:
        return abs(value) < 2**63
    return isinstance(value, kind)


def _refuse(constant: str) -> Any:
    raise ValueError(f"it contains {constant}, which is not valid JSON")
