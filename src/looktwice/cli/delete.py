"""`looktwice delete` and `looktwice compact`: remove items from a table, and erase them from the disk."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, size
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.store import Table

MANY = 1000
"""Deleting more items than this, or all of them, needs a confirmation."""


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("delete", short_help="Remove items from a table.")(delete)
    app.command("compact", short_help="Merge files; with --purge, erase deleted rows for good.")(compact)


def delete(
    path: options.TablePath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids, as search and export show them.")] = None,
    where: options.Where = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    json: options.Json = False,
) -> None:
    """Remove items from a table, by id or by filter. Their source files stay untouched.

    The table remembers them: `looktwice index` skips their files, says so, and brings them back with --restore.
    The command asks before it deletes more than 1,000 items or all of them; without a terminal, pass --yes.
    Searches stop finding the rows at once; `looktwice compact --purge` also erases them from the disk.

    Example: looktwice delete photos.lt --where "year < 1990"
    """
    from looktwice.store import Table

    if bool(ids) == (where is not None):
        raise UsageError("The command needs either ids or --where FILTER; give exactly one of them.")
    opened = Table.open(path)
    with opened.writer():  # held while it asks, so that it deletes exactly the items that it showed
        if not yes:
            _ask(opened, ids, where)
        gone = opened.delete(ids=ids) if ids else opened.delete(where=where)
        if where is not None and not gone:
            note(opened.why_empty(where))
    unknown = len(set(ids)) - gone if ids else 0
    if json:
        emit({"deleted": gone, "unknown": unknown, "items": len(opened)})
    else:
        note(f"{plural(gone, 'item')} deleted; {plural(len(opened), 'item')} left.")
    if unknown:
        note(f"{plural(unknown, 'id')} {'is' if unknown == 1 else 'are'} not in the table.")
        raise typer.Exit(3)


def _ask(table: Table, ids: list[str] | None, where: str | None) -> None:
    """Ask before many items are deleted. Raises UsageError without a yes."""
    rows = table.lookup(ids, ["id"]) if ids else table.rows(["id"], where)
    found = len(rows) if isinstance(rows, list) else table.count(where)
    if not found or (found <= MANY and found < len(table)):
        return
    some = ", ".join(row["id"] for row in islice(rows, 3)) + (", …" if found > 3 else "")
    what = f"{'all ' if found == len(table) else ''}{plural(found, 'item')} of {table.path} ({some})"
    if not sys.stdin.isatty():
        raise UsageError(f"This would delete {what}; pass --yes to confirm.")
    note(f"This deletes {what}.")
    if not typer.confirm("Delete them?", err=True):
        raise UsageError("Nothing was deleted, because you answered no.")


def compact(
    path: options.TablePath,
    purge: Annotated[bool, typer.Option("--purge", help="Also erase deleted rows and old versions for good.")] = False,
    json: options.Json = False,
) -> None:
    """Merge small files of a table; with --purge, also erase deleted and replaced rows.

    Example: looktwice compact photos.lt --purge
    """
    from looktwice.store import Table

    opened = Table.open(path)
    before = opened.location.size()
    with opened.writer():
        opened.compact(purge=purge)
    after = opened.location.size()
    if json:
        emit({"bytes_before": before, "bytes_after": after, "items": len(opened)})
    else:
        note(f"{size(before)} before, {size(after)} now.")
