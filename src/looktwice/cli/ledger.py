"""`looktwice ledger`: what could not be read, and why."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("ledger", short_help="What could not be read, and why.")(ledger)


def ledger(
    path: options.TablePath,
    reason: Annotated[str | None, typer.Option(help="Only entries with this reason, such as truncated.")] = None,
    json: options.Json = False,
) -> None:
    """List what could not be indexed, with path and reason. Indexing a mended file removes its entry.

    Example: looktwice ledger photos.lt --reason truncated
    """
    from looktwice.errors import UnknownName
    from looktwice.sources import display
    from looktwice.store import Table

    entries = Table.open(path).ledger
    reasons = Counter(entry.reason for entry in entries)
    if reason is not None and reasons and reason not in reasons:
        raise UnknownName("reason in this ledger", reason, reasons)
    chosen = (entry for entry in entries if reason in (None, entry.reason))
    if json:
        for entry in chosen:
            emit({name: getattr(entry, name) for name in ("uri", "stage", "reason", "detail", "at")})
        return
    if reasons:
        table(["reason", "stage", "path", "detail"], [(e.reason, e.stage, display(e.uri), e.detail) for e in chosen])
    counts = ", ".join(f"{n} {name}" for name, n in reasons.most_common())
    note(f"{plural(reasons.total(), 'entry', 'entries')}: {counts}." if reasons else "The ledger is empty.")
