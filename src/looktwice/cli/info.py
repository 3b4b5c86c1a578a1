"""`looktwice info`: what a table holds and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, size, table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("info", short_help="What a table holds and what it costs.")(info)


def info(path: options.TablePath, json: options.Json = False) -> None:
    """Show what a table holds: items, encoder, columns, bytes per item, part by part.

    Example: looktwice info photos.lt
    """
    from looktwice.store import Table

    facts = Table.open(path).info()
    if json:
        emit(facts)
    else:
        table(["", ""], list(_rows(facts)))


def _rows(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{label} · ")
        elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
            for place, entry in enumerate(value, start=1):
                yield from _rows(entry, f"{label} {place} · ")
        else:
            yield label, _cell(name, value)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if "bytes" in name and isinstance(value, int | float):
        return size(value)
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
