"""`looktwice add-tokens` and `looktwice codec`: visual tokens beside the items, and what each codec would cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import check_outputs
from looktwice.cli.console import Bar, emit, note, number, plural, progress, say, size, table
from looktwice.cli.groups import grouped
from looktwice.errors import UsageError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.store import Table
    from looktwice.token_index import Progress, TokensReport
    from looktwice.token_index.compare import CodecRow

DEFAULT_SPECS = ("none", "int8", "pq8", "pq16", "pool2+pq8")
Codebook = Annotated[Path | None, typer.Option(help="Use this codebook instead of training one.")]
Seed = Annotated[int, typer.Option(help="Of the sample and the training.")]
TrainTokens = Annotated[int, typer.Option(min=1, help="Tokens of a sample of the table that a codebook is trained on.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("add-tokens", short_help="Store an MLLM's visual tokens of a table's pictures.")(add_tokens)
    app.command("codec", short_help="Compare codecs on a sample before committing to one.")(codec)


@grouped
def add_tokens(
    path: options.TablePath,
    *,
    mllm: options.Mllm = "tiny-vl",
    codec: options.TokenCodec = "pq8",
    limits: options.ImageLimits,
    codebook: Codebook = None,
    save_codebook: Annotated[Path | None, typer.Option(help="Write the codebook to a file, for other tables.")] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Seed = 0,
    max_failures: options.MaxFailures = None,
    compute: options.Compute,
    urls: options.UrlOptions,
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
    training: dict[str, Any] = {"codebook": codebook, "train_tokens": train_tokens, "seed": seed}
    training |= {"max_failures": max_failures, "urls": urls.allowed}
    report = fill(opened, mllm, codec, limits, training, compute, quiet=json)
    if save_codebook is not None and report.codebook_sha256 is not None:
        write_whole(followed(save_codebook), opened.codebook(report.codebook_sha256))
        note(f"Codebook: {save_codebook}")
    if json:
        emit(record(report))
    if report.failed:
        raise typer.Exit(3)


def fill(
    opened: Table,
    mllm: str,
    codec: str,
    limits: options.ImageLimits,
    training: dict[str, Any],
    compute: options.Compute,
    *,
    quiet: bool,
) -> TokensReport:
    """Load the MLLM, store tokens with a progress bar and, unless `quiet`, say what was stored. Also for `index`."""
    from looktwice.codecs import parse_codec
    from looktwice.score import load_scorer
    from looktwice.token_index import add_tokens as add

    parse_codec(codec)  # a wrong name must fail before anything is loaded
    compute.set_threads()
    scorer = load_scorer(mllm, **limits.sizes, **compute.placement)
    with progress("visual tokens", "pictures") as bar:
        report = add(opened, scorer, codec, progress=lambda now: _follow(bar, now), **training)
    if not quiet:
        _tell(opened, report)
    return report


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


def _tell(opened: Table, report: TokensReport) -> None:
    each = f", {size(report.bytes_per_picture)} each" if report.encoded else ""
    rate = f", {report.encoded / report.seconds:,.1f} pictures/s" if report.encoded and report.seconds else ""
    say(f"{report.codec}: tokens of {plural(report.encoded, 'picture')}{each} ({report.seconds:.1f} s{rate})")
    for warning in report.warnings:
        note(f"Warning: {warning}")
    if report.failed:
        note(f"{report.failed:,} pictures gave no tokens. Which, and why: looktwice ledger {opened.path}")


@grouped
def codec(
    path: options.TablePath,
    specs: Annotated[list[str] | None, typer.Argument(metavar="[CODEC]...", help="Codecs to compare.")] = None,
    *,
    mllm: options.Mllm = "tiny-vl",
    prompt: Annotated[str, typer.Option(help="The question asked of each pair.")] = "object",
    queries: Annotated[int, typer.Option(min=1, help="Images of the table taken as queries.")] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Nearest others that each is paired with.")] = 24,
    asymmetric: options.Asymmetric = False,
    limits: options.ImageLimits,
    codebook: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Use this codebook where it fits. Repeatable.")
    ] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Seed = 0,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Compare codecs on real pairs of a table: bytes, reconstruction error, change of p, order kept (Kendall's τ).

    Example: looktwice codec photos.lt pq8 pq16 pool2+pq8 --mllm smolvlm-256m
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
            opened, scorer, chosen, progress=lambda now: _follow(bar, now), **sample, **training
        )
    for row in rows if json else ():
        emit(row.record())
    if not json:
        columns = ["codec", ">bytes/image", ">tokens", ">error", ">|Δp|", ">τ"]
        title = f"{rows[0].pairs} pairs of {rows[0].pictures} images, {mllm}, prompt {prompt}"
        table(columns, list(map(_cells, rows)), title=title)
    for warning in warnings:
        note(f"Warning: {warning}")


def _cells(row: CodecRow) -> list[str]:
    counts = [f"{row.bytes_per_image:,.0f}", f"{row.tokens:.0f}"]
    return [row.codec, *counts, number(row.error, 4), number(row.delta_p, 4), number(row.tau)]


def _follow(bar: Bar, now: Progress) -> None:
    names = {"sample": "tokens for the codebook", "train": "training the codebook", "encode": "visual tokens"}
    bar.describe(names[now.stage])
    bar.total(now.total)
    bar.at(now.done)
