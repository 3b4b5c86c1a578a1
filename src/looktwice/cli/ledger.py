"""`looktwice ledger`: list failed items, with the reason."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, table

_SHOWN = ("uri", "stage", "reason", "detail", "at")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("ledger", short_help="List failed items, with the reason.")(ledger)


def ledger(
    path: options.TablePath,
    reason: Annotated[str | None, typer.Option(help="Only entries with this reason, such as truncated.")] = None,
    json: options.Json = False,
) -> None:
    """List failed items, with id, path and reason. To remove an entry, repair its file and index it again.

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
            emit({"id": entry.item_id or None, **{name: getattr(entry, name) for name in _SHOWN}})
        return
    if reasons:
        rows = [(e.reason, e.stage, e.item_id, display(e.uri), e.detail) for e in chosen]
        table(["reason", "stage", "id", "path", "detail"], rows)
    shown = reasons if reason is None else Counter({reason: reasons[reason]})
    counts = ", ".join(f"{n} {name}" for name, n in shown.most_common())
    of = "" if reason is None else f" of {reasons.total():,}"
    note(f"{plural(shown.total(), 'entry', 'entries')}{of}: {counts}." if reasons else "The ledger is empty.")
