"""Add up the counts of a run over the processes that it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from looktwice.evaluate.compare import Comparison

_Record: TypeAlias = Mapping[str, Any]


SHOWN = 50  # queries that gained, listed by name; those that lost are listed all


def compared(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    return {
        "difference": found.difference._asdict(),
        "p": found.p,
        "helped": len(found.helped),
        "hurt": len(found.hurt),
        "same": found.same,
        "helped_queries": [list(row) for row in found.helped[:SHOWN]],
        "hurt_queries": [list(row) for row in found.hurt],
    }


def finite(value: Any) -> Any:
    """Convert to plain JSON, with infinities and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and value - value != 0 else value


def added(first: _Record, before: _Record, now: _Record) -> dict[str, Any]:
    """Return the settings `first` with the counts of earlier processes (`before`) and of this one (`now`) added."""
    out = dict(first)
    for key, names, add in (
        ("second_look", ("prompt", "prompt_hash", "mode"), _looks),
        ("candidates_from", ("codec", "tokens_key"), _sources),
    ):
        if records := [*_joined(before.get(key) or (), now.get(key) or (), names, add)]:
            out[key] = records
    return out


def _joined(
    before: Iterable[_Record], now: Iterable[_Record], names: Iterable[str], add: Callable[[_Record, _Record], _Record]
) -> Iterable[_Record]:
    """Return the records of both. The n-th records of the same name are added."""
    found: dict[Any, _Record] = {}
    for records in (before, now):
        met: Counter[Any] = Counter()
        for record in records:
            name = tuple(str(record.get(key)) for key in names)
            met[name] += 1
            key = (*name, met[name])
            found[key] = add(found[key], record) if key in found else record
    return found.values()


def _sources(a: _Record, b: _Record) -> _Record:
    return {**a, "counts": dict(Counter(a["counts"]) + Counter(b["counts"]))} if "counts" in a and "counts" in b else a


def _looks(a: _Record, b: _Record) -> _Record:
    counted = isinstance(a.get("retrace"), Mapping) and isinstance(b.get("retrace"), Mapping)
    out = {**a, "retrace": _retraces(a["retrace"], b["retrace"])} if counted else dict(a)
    if isinstance(a.get("requests"), Mapping) and isinstance(b.get("requests"), Mapping):
        out["requests"] = _requests(a["requests"], b["requests"])
    return out


def _requests(a: _Record, b: _Record) -> _Record:
    """Add up what servers were asked."""
    numbers = {key for key in (*a, *b) if isinstance(a.get(key, b.get(key)), int | float)}
    return {**a, **b, **{key: (a.get(key) or 0) + (b.get(key) or 0) for key in numbers}}


def _retraces(a: _Record, b: _Record) -> _Record:
    fired = [sum(one["layers"].values()) for one in (a, b)]
    return {
        **a,
        "pairs": a["pairs"] + b["pairs"],
        "trigger_rate": _mean([a["trigger_rate"], b["trigger_rate"]], [a["pairs"], b["pairs"]]),
        "layers": dict(Counter(a["layers"]) + Counter(b["layers"])),
        "delta_to_ffn": _mean([a["delta_to_ffn"], b["delta_to_ffn"]], fired),
    }


def _mean(values: Iterable[float | None], weights: Iterable[float]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
