"""`looktwice add-tokens` and `looktwice codec`: visual tokens beside the items, and what each codec would cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import check_outputs
from looktwice.cli.console import Bar, emit, note, number, plural, progress, say, size, table
from looktwice.errors import UsageError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.store import Table
    from looktwice.token_index import Progress, TokensReport

DEFAULT_SPECS = ("none", "int8", "pq8", "pq16", "pool2+pq8")
Spec = Annotated[str, typer.Option("--codec", help="How tokens are kept: see `looktwice models codec`.")]
Codebook = Annotated[Path | None, typer.Option(help="Use this codebook instead of training one.")]
TrainTokens = Annotated[int, typer.Option(min=1, help="Tokens of a sample of the table that a codebook is trained on.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("add-tokens", short_help="Store an MLLM's visual tokens of a table's pictures.")(add_tokens)
    app.command("codec", short_help="Compare codecs on a sample before committing to one.")(codec)


def add_tokens(
    path: options.TablePath,
    mllm: options.Mllm = "tiny-vl",
    codec: Spec = "pq8",
    resolution: options.Resolution = None,
    max_tiles: options.MaxTiles = None,
    codebook: Codebook = None,
    save_codebook: Annotated[Path | None, typer.Option(help="Write the codebook to a file, for other tables.")] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Annotated[int, typer.Option(help="Of the sample and the training.")] = 0,
    max_failures: Annotated[int | None, typer.Option(min=0, help="Stop when more pictures than this fail.")] = None,
    allow_urls: options.AllowUrls = False,
    allow_private_urls: options.AllowPrivateUrls = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Store compressed visual tokens, so that the vision tower never sees these pictures at query time.

    Only pictures without tokens of this model and codec are done: run it again after an interruption or after indexing
    more. Several models and codecs can live side by side in a table.

    Example: looktwice add-tokens photos.lt --mllm qwen3-vl-4b --resolution 560 --codec pool2+pq16
    """
    from looktwice.store import Table

    _check_codebook(save_codebook, codec)
    opened = Table.open(path)
    settings = {"device": device, "dtype": dtype, "resolution": resolution, "max_tiles": max_tiles}
    training = {"codebook": codebook, "train_tokens": train_tokens, "seed": seed}
    limits = {"max_failures": max_failures, "urls": options.urls(allow_urls, allow_private_urls)}
    report = fill(opened, mllm, codec, settings, {**training, **limits}, threads)
    if save_codebook is not None and report.codebook_sha256 is not None:
        write_whole(followed(save_codebook), opened.codebook(report.codebook_sha256))
        note(f"Codebook: {save_codebook}")
    if json:
        emit(record(report))
    else:
        tell(opened, report)
    if report.failed:
        raise typer.Exit(3)


def fill(
    opened: Table, mllm: str, codec: str, settings: dict[str, Any], training: dict[str, Any], threads: int | None
) -> TokensReport:
    """Load the MLLM and store tokens, with a progress bar; used by `index` too."""
    from looktwice.codecs import parse_codec
    from looktwice.models.device import set_threads
    from looktwice.score import load_scorer
    from looktwice.token_index import add_tokens as add

    parse_codec(codec)  # a wrong name must fail before anything is loaded
    set_threads(threads)
    scorer = load_scorer(mllm, **settings)
    with progress("visual tokens", "pictures") as bar:
        return add(opened, scorer, codec, progress=lambda now: _follow(bar, now), **training)


def _check_codebook(path: Path | None, codec: str) -> None:
    """Refuse, before the work, a codebook that could not be written or that there will not be."""
    from looktwice.codecs import parse_codec

    if path is None:
        return
    if not parse_codec(codec).needs_codebook:
        raise UsageError(f"The codec {codec} has no codebook; leave out --save-codebook.")
    check_outputs(path, None)


def record(report: TokensReport) -> dict[str, Any]:
    """What was stored, for --json."""
    return {**asdict(report), "bytes_per_picture": report.bytes_per_picture}


def tell(opened: Table, report: TokensReport) -> None:
    """Say what was stored."""
    each = f", {size(report.bytes_per_picture)} each" if report.encoded else ""
    rate = f", {report.encoded / report.seconds:,.1f} pictures/s" if report.encoded and report.seconds else ""
    say(f"{report.codec}: tokens of {plural(report.encoded, 'picture')}{each} ({report.seconds:.1f} s{rate})")
    for warning in report.warnings:
        note(f"Warning: {warning}")
    if report.failed:
        note(f"{report.failed:,} pictures gave no tokens. Which, and why: looktwice ledger {opened.path}")


def codec(
    path: options.TablePath,
    specs: Annotated[list[str] | None, typer.Argument(metavar="[CODEC]...", help="Codecs to compare.")] = None,
    mllm: options.Mllm = "tiny-vl",
    prompt: Annotated[str, typer.Option(help="The question asked of each pair.")] = "object",
    queries: Annotated[int, typer.Option(min=1, help="Pictures of the table taken as queries.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Nearest others that each is paired with.")] = 24,
    asymmetric: options.Asymmetric = False,
    resolution: options.Resolution = None,
    max_tiles: options.MaxTiles = None,
    codebook: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Use this codebook where it fits. Repeatable.")
    ] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Annotated[int, typer.Option(help="Of the sample and the training.")] = 0,
    allow_urls: options.AllowUrls = False,
    allow_private_urls: options.AllowPrivateUrls = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Compare codecs on real pairs of a table: bytes, reconstruction error, change of p, order kept (Kendall's τ).

    Example: looktwice codec photos.lt pq8 pq16 pool2+pq8 --mllm smolvlm-256m
    """
    from looktwice.codecs import parse_codec
    from looktwice.models.device import set_threads
    from looktwice.score import load_scorer
    from looktwice.store import Table
    from looktwice.token_index import compare_codecs

    chosen = specs or list(DEFAULT_SPECS)
    for spec in chosen:
        parse_codec(spec)
    opened = Table.open(path)
    set_threads(threads)
    scorer = load_scorer(mllm, prompt=prompt, device=device, dtype=dtype, resolution=resolution, max_tiles=max_tiles)
    with progress("comparing codecs", "tokens") as bar:
        rows, warnings = compare_codecs(
            opened,
            scorer,
            chosen,
            queries=queries,
            depth=depth,
            asymmetric=asymmetric,
            codebooks=codebook or (),
            train_tokens=train_tokens,
            seed=seed,
            urls=options.urls(allow_urls, allow_private_urls),
            progress=lambda now: _follow(bar, now),
        )
    for row in rows if json else ():
        emit(row.record())
    if not json:
        columns = ["codec", ">bytes/image", ">tokens", ">error", ">|Δp|", ">τ"]
        cells = [
            (
                r.codec,
                f"{r.bytes_per_image:,.0f}",
                f"{r.tokens:.0f}",
                number(r.error, 4),
                number(r.delta_p, 4),
                number(r.tau),
            )
            for r in rows
        ]
        table(columns, cells, title=f"{rows[0].pairs} pairs of {rows[0].pictures} pictures, {mllm}, prompt {prompt}")
    for warning in warnings:
        note(f"Warning: {warning}")


def _follow(bar: Bar, now: Progress) -> None:
    names = {"sample": "tokens for the codebook", "train": "training the codebook", "encode": "visual tokens"}
    bar.describe(names[now.stage])
    bar.total(now.total)
    bar.at(now.done)
