"""`looktwice add-tokens` and `looktwice codec`: store visual tokens, and compare codecs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import TerminalBar, emit, note, number, plural, progress, say, size, table
from looktwice.cli.groups import grouped
from looktwice.cli.outputs import check_outputs
from looktwice.cli.presets import Preset
from looktwice.cli.unused import refuse_unused
from looktwice.errors import UsageError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.models.cluster import Cluster
    from looktwice.store import Table
    from looktwice.token_index import Progress, TokensReport
    from looktwice.token_index.compare import CodecRow

DEFAULT_SPECS = ("none", "int8", "rsq4", "pq8", "opq8", "opq16", "pool2+opq8")
Codebook = Annotated[Path | None, typer.Option(help="Use this codebook instead of training one.")]
Seed = Annotated[int, typer.Option(help="Random seed of the sample and of the training.")]
TrainTokens = Annotated[int, typer.Option(min=1, help="Number of sampled tokens to train a codebook on.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("add-tokens", short_help="Store an MLLM's visual tokens of a table's images.")(add_tokens)
    app.command("codec", short_help="Compare codecs on a sample before committing to one.")(codec)


Tower = Annotated[
    str | None,
    typer.Option(
        help="Store an encoder's patch tokens instead, for --maxsim only: its name, or own (the table's).",
        show_default=False,
    ),
]


@grouped
def add_tokens(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    mllm: options.Mllm = "tiny-vl",
    codec: options.TokenCodec = options.DEFAULT_CODEC,
    preset: Preset = None,
    tower: Tower = None,
    crops: Annotated[
        bool, typer.Option("--crops", help="Store those of four crops, too: five times the bytes, for --maxsim only.")
    ] = False,
    limits: options.ImageLimits,
    codebook: Codebook = None,
    save_codebook: Annotated[Path | None, typer.Option(help="Write the codebook to a file, for other tables.")] = None,
    train_tokens: TrainTokens = 65_536,
    seed: Seed = 0,
    max_failures: options.MaxFailures = None,
    spread: Distribution,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Store compressed visual tokens, so that the vision tower skips these images at query time.

    The command encodes only images without tokens of this model and codec: run it again after an interruption or after
    indexing more images. A table can hold tokens of several models and codecs.

    Examples:

      looktwice add-tokens photos.lt --mllm qwen3-vl-4b --resolution 560 --codec pool2+pq16

      looktwice add-tokens photos.lt --tower dinov3-l --codec opq16
    """
    from looktwice.store import Table

    _check_codebook(save_codebook, codec)
    refuse_unused(ctx, () if tower is None else ("mllm", "resolution", "max_tiles", "ray"), "with --tower")
    opened, cluster = Table.open(path), spread.connect(ctx)
    if spread.dry_run:
        what = {"images": opened.count("width > 0"), "model": tower or mllm, "codec": codec}
        return spread.plan(cluster, {"table": str(opened.path), **what}, json)
    training: dict[str, Any] = {"codebook": codebook, "train_tokens": train_tokens, "seed": seed}
    training |= {"max_failures": max_failures, "urls": urls.allowed, "crops": crops}
    if tower is None:
        report = fill(opened, mllm, codec, limits, training, compute, quiet=json, cluster=cluster)
    else:
        report = _fill(opened, lambda: _tower(opened, tower, compute), codec, training, compute, quiet=json)
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
    cluster: Cluster | None = None,
) -> TokensReport:
    """Load the MLLM and store tokens with a progress bar; print a summary unless `quiet`. `index` calls this too."""
    from looktwice.score import load_scorer

    def load() -> object:
        return load_scorer(mllm, **limits.sizes, **compute.placement)

    if cluster is not None:
        from looktwice.token_index.distributed import TokenJob

        loading = {**limits.sizes, **compute.placement}
        job = TokenJob.of(opened, mllm, loading=loading, crops=training.get("crops", False), urls=training["urls"])
        training = {**training, "encode": job.on(cluster)}
    return _fill(opened, load, codec, training, compute, quiet=quiet)


def _tower(opened: Table, name: str, compute: options.Compute) -> object:
    """Load the encoder whose patch tokens are stored."""
    from looktwice.encode import load_encoder
    from looktwice.encode.patch_tower import PatchTower

    info = opened.manifest.encoder
    named = (info.name, info.revision) if name == "own" else (name, None)
    return PatchTower(load_encoder(named[0], revision=named[1], **compute.placement))


def _fill(
    opened: Table,
    load: Callable[[], object],
    codec: str,
    training: dict[str, Any],
    compute: options.Compute,
    *,
    quiet: bool,
) -> TokensReport:
    from looktwice.codecs import parse_codec
    from looktwice.token_index import add_tokens as add

    parse_codec(codec)  # a wrong name must fail before anything is loaded
    compute.set_threads()
    scorer = load()
    with progress("visual tokens", "images") as bar:
        report = add(opened, scorer, codec, progress=lambda now: _follow(bar, now), **training)
    if not quiet:
        _tell(opened, report)
    return report


def _check_codebook(path: Path | None, codec: str) -> None:
    """Refuse --save-codebook before the work begins, if the codec has no codebook or the path is not writable."""
    from looktwice.codecs import parse_codec

    if path is None:
        return
    if not parse_codec(codec).needs_codebook:
        raise UsageError(f"The codec {codec} has no codebook; leave out --save-codebook.")
    check_outputs(path, None)


def record(report: TokensReport) -> dict[str, Any]:
    """Return the report as one record for --json."""
    return {**asdict(report), "bytes_per_image": report.bytes_per_image}


def _tell(opened: Table, report: TokensReport) -> None:
    each = f", {size(report.bytes_per_image)} each" if report.encoded else ""
    rate = f", {report.encoded / report.seconds:,.1f} images/s" if report.encoded and report.seconds else ""
    say(f"{report.codec}: tokens of {plural(report.encoded, 'image')}{each} ({report.seconds:.1f} s{rate})")
    for warning in report.warnings:
        note(f"Warning: {warning}")
    if report.failed:
        note(f"{plural(report.failed, 'image')} got no tokens; list the reasons with: looktwice ledger {opened.path}")


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
            opened, scorer, chosen, progress=lambda now: _follow(bar, now), **sample, **training
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
    from looktwice.files import write_whole
    from looktwice.token_index.compare import frontier

    points = {row.codec: [(row.bytes_per_image / 1000, row.tau)] for row in rows if row.tau == row.tau}
    best = [points[row.codec][0] for row in frontier(rows)]
    names = {"title": "Order kept against size", "x": "kB per image", "y": "Kendall's τ"}
    write_whole(into, plot(points, **names, joined=False, guide=best).encode())
    note(f"Frontier: {into}")


def _follow(bar: TerminalBar, now: Progress) -> None:
    names = {"sample": "tokens for the codebook", "train": "training the codebook", "encode": "visual tokens"}
    bar.describe(names[now.stage])
    bar.total(now.total)
    bar.at(now.done)
