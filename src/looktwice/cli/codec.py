"""`looktwice codec`: compare codecs of visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, number, progress, table
from looktwice.cli.groups import grouped
from looktwice.cli.tokens import Seed, TrainTokens, follow
from looktwice.files import write_whole

if TYPE_CHECKING:
    from looktwice.token_index.compare import CodecRow

DEFAULT_SPECS = ("none", "int8", "rsq4", "pq8", "opq8", "opq16", "pool2+opq8")


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("codec", short_help="Compare codecs on a sample before committing to one.")(codec)


@grouped
def codec(
    path: options.TablePath,
    specs: Annotated[list[str] | None, typer.Argument(metavar="CODEC", help="Codecs to compare.")] = None,
    *,
    mllm: options.Mllm = "tiny-vl",
    prompt: Annotated[str, typer.Option(help="Prompt to score each pair with.")] = "object",
    queries: Annotated[int, typer.Option(min=1, help="Number of the table's images to use as queries.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Number of nearest images to pair each query with.")] = 24,
    asymmetric: options.Asymmetric = False,
    limits: options.ImageLimits,
    codebook: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Use this codebook where it fits. Repeatable.")
    ] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Seed = 0,
    frontier: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw τ against bytes; the dashed line joins the best.")
    ] = None,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Compare codecs on pairs from a table: bytes, reconstruction error, change of p, order kept (Kendall's τ).

    A codec with a dot is on the frontier: no other one keeps more of the order in as few bytes.

    Example: looktwice codec photos.lt opq8 opq16 pool2+opq8 --mllm smolvlm-256m
    """
    from looktwice.codecs import parse_codec
    from looktwice.score import load_scorer
    from looktwice.store import Table
    from looktwice.token_index import compare_codecs

    chosen = specs or list(DEFAULT_SPECS)
    for spec in chosen:
        parse_codec(spec)
    opened = Table.open(path)
    compute.set_threads()
    scorer = load_scorer(mllm, prompt=prompt, **limits.sizes, **compute.placement)
    sample: dict[str, Any] = {"queries": queries, "depth": depth, "asymmetric": asymmetric, "seed": seed}
    training: dict[str, Any] = {"codebooks": codebook or (), "train_tokens": train_tokens, "urls": urls.allowed}
    with progress("comparing codecs", "tokens") as bar:
        rows, warnings = compare_codecs(
            opened, scorer, chosen, progress=lambda now: follow(bar, now), **sample, **training
        )
    _show(rows, f"{rows[0].pairs} pairs of {rows[0].images} images, {mllm}, prompt {prompt}", json)
    if frontier is not None:
        _draw(rows, frontier)
    for warning in warnings:
        note(f"Warning: {warning}")


def _show(rows: Sequence[CodecRow], title: str, json: bool) -> None:
    from looktwice.token_index.compare import frontier

    for row in rows if json else ():
        emit(row.record())
    if not json:
        best = frontier(rows)
        columns = ["codec", ">bytes/image", ">tokens", ">error", ">|Δp|", ">τ [95 %]", "frontier"]
        table(columns, [[*_cells(row), "●" if row in best else ""] for row in rows], title=title)


def _cells(row: CodecRow) -> list[str]:
    counts = [f"{row.bytes_per_image:,.0f}", f"{row.tokens:.0f}"]
    order = f"{number(row.tau)} [{number(row.tau_low)}, {number(row.tau_high)}]"
    return [row.codec, *counts, number(row.error, 4), number(row.delta_p, 4), order]


def _draw(rows: Sequence[CodecRow], into: Path) -> None:
    """Write the drawing of τ against bytes."""
    from looktwice.experiment.plot import plot
    from looktwice.token_index.compare import frontier

    points = {row.codec: [(row.bytes_per_image / 1000, row.tau)] for row in rows if row.tau == row.tau}
    best = [points[row.codec][0] for row in frontier(rows)]
    names = {"title": "Order kept against size", "x": "kB per image", "y": "Kendall's τ"}
    write_whole(into, plot(points, **names, joined=False, guide=best).encode())
    note(f"Frontier: {into}")
