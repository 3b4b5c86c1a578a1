"""`looktwice delete` and `looktwice compact`: taking items out, and really erasing them."""

from __future__ import annotations

from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, size
from looktwice.errors import UsageError


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
    json: options.Json = False,
) -> None:
    """Take items out of a table, by id or by filter. The files they came from are not touched.

    The rows leave every answer at once; `looktwice compact --purge` also erases them from the disk.

    Example: looktwice delete photos.lt --where "year < 1990"
    """
    from looktwice.store import Table

    if bool(ids) == (where is not None):
        raise UsageError("Say which items: their ids, or --where with a filter; one of the two.")
    opened = Table.open(path)
    with opened.writer():
        gone = opened.delete(ids=ids) if ids else opened.delete(where=where)
    unknown = len(set(ids)) - gone if ids else 0
    if json:
        emit({"deleted": gone, "unknown": unknown, "items": len(opened)})
    else:
        note(f"{plural(gone, 'item')} deleted; {plural(len(opened), 'item')} left.")
    if unknown:
        note(f"{plural(unknown, 'id')} named nothing in the table.")
        raise typer.Exit(3)


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
