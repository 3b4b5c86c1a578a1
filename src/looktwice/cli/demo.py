"""`looktwice demo`: the whole thing on pictures that come with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import summarise
from looktwice.cli.console import emit, note, number, progress, say, size, table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("demo", short_help="Index the bundled gallery, search it, measure both looks.")(demo)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where table, runs and report go.")] = Path(
        "demo-out"
    ),
    gallery: Annotated[
        Path | None, typer.Option(help="Another gallery: images/, queries.jsonl, qrels.txt.", show_default="bundled")
    ] = None,
    encoder: options.Encoder = "tiny-clip",
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    fusion: options.FusionRule = "0.5",
    shortlist: options.Shortlist = 50,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Index the bundled gallery, run its labelled queries, compare the shortlist with the second look, write a report.

    The last line of output is the report's path.

    Example: looktwice demo
    """
    from looktwice.experiment.demo import run_demo
    from looktwice.models.device import set_threads
    from looktwice.search.mllm_reranker import MllmReranker

    set_threads(threads)
    look = MllmReranker(mllm, prompt=prompt, device=device, dtype=dtype)
    with progress("indexing the gallery", "pictures") as indexing, progress("looking twice", "queries") as searching:
        done = run_demo(
            folder,
            look,
            gallery=gallery,
            encoder=encoder,
            shortlist=shortlist,
            fusion=fusion,
            device=device,
            dtype=dtype,
            indexing=indexing,
            searching=searching,
        )
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
        note(f"{done.indexed.failed} pictures could not be indexed, {done.unscored} pairs or queries not be scored.")
        raise typer.Exit(3)


def _cells(row: Mapping[str, Any]) -> list[str]:
    how = {"seconds": lambda v: number(v, 1), "pairs/s": lambda v: number(v, 1), "bytes/item": size}
    return [value if isinstance(value, str) else how.get(name, number)(value) for name, value in row.items()]
