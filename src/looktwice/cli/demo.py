"""`looktwice demo`: index, search and measure the bundled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, number, plural, progress, say, size, table
from looktwice.cli.groups import grouped
from looktwice.cli.summary import summarise

if TYPE_CHECKING:
    from looktwice.experiment.demo import Demo
    from looktwice.search.mllm_reranker import MllmReranker


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("demo", short_help="Index the bundled gallery, search it, measure both stages.")(demo)


Words = Annotated[
    bool,
    typer.Option("--words", help="Also ask for clip art, by names met in training or not, and by another artist."),
]


@dataclass(frozen=True)
class Serving:
    """Serving the gallery."""

    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the gallery with a page to search it, instead of measuring.")
    ] = False
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --serve; 0 takes a free one.")] = 8765


@grouped
def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the table, runs and report.")] = Path(
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
    serving: Serving,
    compute: options.Compute,
    json: options.Json = False,
) -> None:
    """Index the bundled gallery, run its labelled queries, compare first, middle and second look, and write a report.

    The last line of output is the report's path.

    Examples:

      looktwice demo

      looktwice demo --serve
    """
    from looktwice.experiment.demo import run_demo

    compute.set_threads()
    look = options.Rerank(mllm=mllm, prompt=prompt).load(compute)
    chosen: dict[str, Any] = {
        "gallery": gallery,
        "encoder": encoder,
        "shortlist": shortlist,
        "fusion": fusion,
        "words": words,
        "maxsim": maxsim,
        **compute.placement,
    }
    if serving.serve:
        return _serve(folder, look, serving.port, chosen)
    with progress("indexing the gallery", "images") as indexing, progress("looking twice", "queries") as searching:
        done = run_demo(folder, look, indexing=indexing, searching=searching, **chosen)
    _show(done, json)
    if done.unscored or done.indexed.failed:
        note(
            f"{plural(done.indexed.failed, 'image')} could not be indexed, and {done.unscored:,} pairs or queries "
            f"got no score; list the reasons with: looktwice ledger {folder / 'gallery.lt'}"
        )
        raise typer.Exit(3)


def _show(done: Demo, json: bool) -> None:
    """Write the rows of both looks and the report's path."""
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


def _serve(folder: Path, look: MllmReranker, port: int, chosen: Mapping[str, Any]) -> None:
    """Index the gallery, and serve it until interrupted."""
    from looktwice.cli.serve import run_server
    from looktwice.encode import load_encoder
    from looktwice.experiment.demo import bundled_gallery, fill_gallery
    from looktwice.experiment.demo_words import word_queries
    from looktwice.serve.settings import Settings

    placement: dict[str, Any] = {name: chosen[name] for name in ("device", "dtype")}
    images = [(chosen["gallery"] or bundled_gallery()) / "images"]
    images += [word_queries(folder / "words").scenes] if chosen["words"] else []
    with progress("indexing the gallery", "images") as bar:
        loaded = load_encoder(chosen["encoder"], **placement)
        _, indexed, maxsim = fill_gallery(folder, look, images, loaded, chosen["maxsim"], bar)
    note(f"{indexed.added:,} images added; press Ctrl-C to stop.")
    rules: dict[str, Any] = {name: chosen[name] for name in ("fusion", "shortlist")}
    own: dict[str, Any] = {"mllm": str(look.mllm), "prompt": look.prompt, "maxsim": maxsim, "port": port}
    run_server(Settings(tables=(folder / "gallery.lt",), **own, **rules, **placement))


def _cells(row: Mapping[str, Any]) -> list[str]:
    how = {"seconds": lambda v: number(v, 1), "pairs/s": lambda v: number(v, 1), "bytes/item": size}
    return [value if isinstance(value, str) else how.get(name, number)(value) for name, value in row.items()]
