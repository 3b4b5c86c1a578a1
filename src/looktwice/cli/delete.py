"""`looktwice delete` and `looktwice compact`: taking items out, and really erasing them."""

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
"""More items than this are deleted only after a yes, and so is a whole table."""


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("delete", short_help="Take items out of a table.")(delete)
    app.command("compact", short_help="Merge files; with --purge, erase deleted rows for good.")(compact)


def delete(
    path: options.TablePath,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, as search and export show them.")
    ] = None,
    where: options.Where = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, however many items it is.")] = False,
    json: options.Json = False,
) -> None:
    """Take items out of a table, by id or by filter. The files they came from are not touched.

    Before more than 1,000 items or all of them go, it asks; where there is nobody to ask, it wants --yes.
    The rows leave every answer at once; `looktwice compact --purge` also erases them from the disk.

    Example: looktwice delete photos.lt --where "year < 1990"
    """
    from looktwice.store import Table

    if bool(ids) == (where is not None):
        raise UsageError("Items are named either by ids or by --where FILTER; give one of the two.")
    opened = Table.open(path)
    with opened.writer():  # held while it asks, so that what was agreed to is what goes
        if not yes:
            _ask(opened, ids, where)
        gone = opened.delete(ids=ids) if ids else opened.delete(where=where)
    unknown = len(set(ids)) - gone if ids else 0
    if json:
        emit({"deleted": gone, "unknown": unknown, "items": len(opened)})
    else:
        note(f"{plural(gone, 'item')} deleted; {plural(len(opened), 'item')} left.")
    if unknown:
        note(f"{plural(unknown, 'id')} named nothing in the table.")
        raise typer.Exit(3)


def _ask(table: Table, ids: list[str] | None, where: str | None) -> None:
    """Raise UsageError where much is to be deleted and nobody agrees to that."""
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
        raise UsageError("Nothing was deleted, because the answer was no.")


def compact(
    path: options.TablePath,
    purge: Annotated[bool, typer.Option("--purge", help="Also erase deleted rows and old versions for good.")] = False,
    json: options.Json = False,
) -> None:
    """Merge small files of a table; with --purge, erase what was deleted or replaced.

    Example: looktwice compact photos.lt --purge
    """
    from looktwice.store import Table, bytes_below

    opened = Table.open(path)
    before = bytes_below(path)
    with opened.writer():
        opened.compact(purge=purge)
    after = bytes_below(path)
    if json:
        emit({"bytes_before": before, "bytes_after": after, "items": len(opened)})
    else:
        note(f"{size(before)} before, {size(after)} now.")
