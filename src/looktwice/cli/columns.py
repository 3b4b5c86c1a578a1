"""`looktwice columns`: list the columns of a table, or make columns of metadata keys."""

from __future__ import annotations

from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, say, table
from looktwice.errors import UnknownName, UsageError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("columns", short_help="List the columns to filter on, or add some.")(columns)


def columns(
    path: options.TablePath,
    action: Annotated[str, typer.Argument(metavar="add", help="add; without it the columns are listed.")] = "list",
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="NAME:TYPE", help="Metadata keys: int, float, str or bool.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the columns that filters may name, or make columns of metadata keys.

    A new column is filled from the stored metadata. A value of another type is null in the column and counted; the item
    stays as it is. The same command again fills what an interruption left out.

    Example: looktwice columns photos.lt add year:int
    """
    from looktwice.store import Table, parse_columns

    if action not in ("add", "list"):
        raise UnknownName("action", action, ("add", "list"))
    if (action == "add") != bool(specs):
        raise UsageError("Name the columns to add, such as: looktwice columns TABLE add year:int")
    opened = Table.open(path)
    wanted = parse_columns(specs or ()) if specs else dict(opened.columns)
    unfit = opened.add_columns(wanted) if specs else {}
    rows = [
        {"name": name, "type": kind.__name__, "values": opened.count({name: {"!=": None}}), "items": len(opened)}
        for name, kind in wanted.items()
    ]
    if json:
        for row in rows:
            emit({**row, **({"unfit": unfit[str(row["name"])]} if specs else {})})
    elif specs:
        for row in rows:
            missed = unfit[str(row["name"])]
            rest = f"; {missed:,} did not fit and {'is' if missed == 1 else 'are'} null" if missed else ""
            say(f"{row['name']}:{row['type']}: {row['values']:,} of {row['items']:,} items have a value{rest}")
    elif not rows:
        note(f"No columns to filter on; make one of a metadata key with: looktwice columns {opened.path} add NAME:TYPE")
    else:
        table(["column", "type", ">items with a value"], [(row["name"], row["type"], row["values"]) for row in rows])
