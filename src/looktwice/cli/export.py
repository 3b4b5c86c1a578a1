"""`looktwice export`: write vectors, ids and metadata for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, say
from looktwice.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("export", short_help="Write vectors, ids and metadata as Parquet.")(export)


def export(
    path: options.TablePath,
    target: Annotated[
        Path,
        typer.Argument(metavar="TARGET", help="A new file that ends in .parquet, or a new folder for items.parquet."),
    ],
    json: options.Json = False,
) -> None:
    """Write vectors, ids, texts and metadata to a Parquet file; `looktwice info --json` shows their encoder.

    Example: looktwice export photos.lt photos.parquet
    """
    from looktwice.store import Table

    if target.is_dir() and any(file.name != "items.parquet.tmp" for file in target.iterdir()):  # left by a kill -9
        raise UsageError(f"{target} exists already and is not empty; name a new file or folder.")
    opened = Table.open(path)
    file = str(opened.export(target))
    if json:
        emit({"items": len(opened), "files": [file]})
        return
    say(file)
    note(f"{len(opened):,} items written.")
