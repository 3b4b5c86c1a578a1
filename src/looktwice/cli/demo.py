"""`looktwice demo`: index, search and measure the bundled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, number, plural, progress, say, size, table
from looktwice.cli.groups import grouped
from looktwice.cli.summary import summarise


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("demo", short_help="Index the bundled gallery, search it, measure both stages.")(demo)


Words = Annotated[
    bool,
    typer.Option("--words", help="Also ask for names that the bundled models were trained on, in other drawings."),
]


@grouped
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder for the table, runs and report.")] = Path(
        "demo-out"
    ),
    *,
    gallery: Annotated[
        Path | None, typer.Option(help="Another gallery: images/, queries.jsonl, qrels.txt.", show_default="bundled")
    ] = None,
    encoder: options.Encoder = options.DEFAULT_ENCODER,
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    fusion: options.Fusion = "auto",
    maxsim: Annotated[
        int, typer.Option(min=0, help="Candidates of the middle look; 0: none, and no stored tokens.")
    ] = 1000,
    shortlist: options.Shortlist = 50,
    words: Words = False,
    compute: options.Compute,
    json: options.Json = False,
) -> None:
    """Index the bundled gallery, run its labelled queries, compare first, middle and second look, and write a report.

    The last line of output is the report's path.

    Example: looktwice demo
    """
    from looktwice.experiment.demo import run_demo

    compute.set_threads()
    look = options.Rerank(mllm, prompt).load(compute)
    chosen: dict[str, Any] = {
        "gallery": gallery,
        "encoder": encoder,
        "shortlist": shortlist,
        "fusion": fusion,
        "words": words,
        "maxsim": maxsim,
        **compute.placement,
    }
    with progress("indexing the gallery", "images") as indexing, progress("looking twice", "queries") as searching:
        done = run_demo(folder, look, indexing=indexing, searching=searching, **chosen)
    summarise(done.manifest)
    if json:
        for row in done.rows:
            emit(row)
        emit({"report": str(done.report)})
    else:
        table(
            [name if name in ("queries", "ranking") else f">{name}" for name in done.rows[0]],
            list(map(_cells, done.rows)),
        )
        say(str(done.report))
    if done.unscored or done.indexed.failed:
        note(
            f"{plural(done.indexed.failed, 'image')} could not be indexed, and {done.unscored:,} pairs or queries "
            f"got no score; list the reasons with: looktwice ledger {folder / 'gallery.lt'}"
        )
        raise typer.Exit(3)


def _cells(row: Mapping[str, Any]) -> list[str]:
    how = {"seconds": lambda v: number(v, 1), "pairs/s": lambda v: number(v, 1), "bytes/item": size}
    return [value if isinstance(value, str) else how.get(name, number)(value) for name, value in row.items()]
