"""`looktwice import`: fill a table with vectors that exist."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, say
from looktwice.cli.groups import grouped


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("import", short_help="Fill a table with vectors that exist.")(import_)


@grouped
def import_(
    path: options.TablePath,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .parquet file or folder, a .lance table, …")],
    *,
    encoder: Annotated[str, typer.Option(help="The encoder that made the vectors; queries are encoded with it.")],
    vector: Annotated[str | None, typer.Option(help="Column of the vectors [default: vector, embedding, …].")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column of the ids [default: id, key].")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts [default: text, caption].")] = None,
    image: Annotated[str | None, typer.Option(help="Column of image files [default: image_path, image, …].")] = None,
    compute: options.Compute,
    json: options.Json = False,
) -> None:
    """Fill a table from a Parquet file, a folder of them, a LanceDB table or a clip-retrieval folder.

    Nothing is encoded, but for a few images that are compared with their vectors. All other columns become metadata. A
    row whose image is not a file here is an item of its text.

    Example: looktwice import shop.lt embeddings.parquet --encoder siglip2-b --image path
    """
    from looktwice.encode import load_encoder
    from looktwice.indexing.importing import import_vectors
    from looktwice.store import Table, exists

    compute.set_threads()
    loaded = load_encoder(encoder, **compute.placement)
    opened = Table.open(path) if exists(path) else Table.create(path, loaded.info)
    names = {"vector": vector, "id": id_column, "text": text, "image": image}
    report = import_vectors(opened, source, loaded, names)
    if opened.index_is_due:
        opened.build_index()
    if json:
        emit({**asdict(report), "items": len(opened)})
    else:
        counts = f"{report.images:,} with an image here, {report.failed:,} left out"
        say(f"{opened.path}: {report.imported:,} imported, {counts}")
        if not report.compared:
            note("No vector was compared with its image; make sure that --encoder names the model that made them.")
        if report.reasons:
            reasons = ", ".join(f"{n} {reason}" for reason, n in report.reasons.items())
            note(f"{plural(report.failed, 'row was', 'rows were')} left out: {reasons}.")
    if report.failed:
        raise typer.Exit(3)
