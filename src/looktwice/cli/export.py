"""`looktwice export`: vectors, ids and metadata for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, say
from looktwice.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("export", short_help="Vectors, ids and metadata as Parquet.")(export)


def export(
    path: options.TablePath,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the Parquet file.")],
    json: options.Json = False,
) -> None:
    """Write vectors, ids, texts and metadata to FOLDER/items.parquet; `looktwice info --json` says what made them.

    Example: looktwice export photos.lt photos-parquet
    """
    from looktwice.store import Table

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already and is not empty; name a new folder.")
    opened = Table.open(path)
    opened.export(folder)
    files = sorted(str(file) for file in folder.rglob("*") if file.is_file())
    if json:
        emit({"items": len(opened), "files": files})
        return
    for file in files:
        say(file)
    note(f"{len(opened):,} items written.")
