"""`looktwice ledger`: list failed items, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, table

if TYPE_CHECKING:
    from looktwice.store import LedgerEntry

_SHOWN = ("uri", "stage", "reason", "detail", "at")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("ledger", short_help="List failed items, with the reason.")(ledger)


def ledger(
    path: options.TablePath,
    reason: Annotated[str | None, typer.Option(help="Only entries with this reason, such as truncated.")] = None,
    skipped: Annotated[bool, typer.Option("--skipped", help="List files that need an extra instead.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept the listed failures: they do not count in later runs.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List failed items, with id, path and reason. To remove an entry, repair its file and index it again.

    A failure that stays, such as a dead link, can be accepted: it keeps its line, and the exit code of `index` is 0.

    Example: looktwice ledger photos.lt --reason truncated
    """
    from looktwice.errors import UnknownName
    from looktwice.indexing.failures import SKIPPED, accept_failures
    from looktwice.sources import display
    from looktwice.store import Table

    opened = Table.open(path)
    reasons = Counter(entry.reason for entry in opened.ledger if (entry.stage == SKIPPED) == skipped)
    if reason is not None and reasons and reason not in reasons:
        raise UnknownName("reason in this ledger", reason, reasons)
    chosen: Iterable[LedgerEntry] = (
        entry for entry in opened.ledger if (entry.stage == SKIPPED) == skipped and reason in (None, entry.reason)
    )
    if accept:
        chosen = accept_failures(opened, chosen)
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
    empty = "No file lacks an extra." if skipped else "No item has failed." if opened.ledger else "The ledger is empty."
    note(f"{plural(shown.total(), 'entry', 'entries')}{of}: {counts}." if reasons else empty)
