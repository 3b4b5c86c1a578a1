"""`looktwice add-tokens`: store visual tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import TerminalBar, emit, note, plural, progress, say, size
from looktwice.cli.groups import grouped
from looktwice.cli.outputs import check_outputs
from looktwice.cli.presets import Preset
from looktwice.cli.unused import is_given, refuse_unused
from looktwice.errors import UsageError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.models.cluster import Cluster
    from looktwice.store import Table
    from looktwice.token_index import Progress, TokensReport

Codebook = Annotated[Path | None, typer.Option(help="Use this codebook instead of training one.")]
Seed = Annotated[int, typer.Option(help="Random seed of the sample and of the training.")]
TrainTokens = Annotated[int, typer.Option(min=1, help="Number of sampled tokens to train a codebook on.")]


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("add-tokens", short_help="Store an MLLM's visual tokens of a table's images.")(add_tokens)


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
    indexing more images. Without --codec, it takes the codec of the tokens that the model has in the table. A table
    can hold tokens of several models and codecs.

    Examples:

      looktwice add-tokens photos.lt --mllm qwen3-vl-4b --resolution 560 --codec pool2+pq16

      looktwice add-tokens photos.lt --tower dinov3-l --codec opq16
    """
    from looktwice.store import Table

    _check_codebook(save_codebook, codec)
    refuse_unused(ctx, () if tower is None else ("mllm", "resolution", "max_tiles", "ray"), "with --tower")
    opened, cluster = Table.open(path), spread.connect(ctx)
    named = is_given(ctx, "codec")
    if spread.dry_run:
        what = {"images": opened.count("width > 0"), "model": tower or mllm, **({"codec": codec} if named else {})}
        return spread.plan(cluster, {"table": str(opened.path), **what}, json)
    training: dict[str, Any] = {"codebook": codebook, "train_tokens": train_tokens, "seed": seed}
    training |= {"max_failures": max_failures, "urls": urls.allowed, "crops": crops}
    how: dict[str, Any] = {"named": named, "quiet": json}
    if tower is None:
        report = fill(opened, mllm, codec, limits, training, compute, cluster=cluster, **how)
    else:
        report = _fill(opened, lambda: _tower(opened, tower, compute), codec, training, compute, **how)
    if save_codebook is not None:
        _check_codebook(save_codebook, report.codec)
        write_whole(followed(save_codebook), opened.codebook(str(report.codebook_sha256)))
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
    named: bool,
    quiet: bool,
    cluster: Cluster | None = None,
) -> TokensReport:
    """Load the MLLM and store tokens with a progress bar; print a summary unless `quiet`. `index` calls this too.

    A codec that the user has not `named` is for a model without tokens in the table.
    """
    from looktwice.score import load_scorer

    def load() -> object:
        return load_scorer(mllm, **limits.sizes, **compute.placement)

    if cluster is not None:
        from looktwice.token_index.distributed import TokenJob

        loading = {**limits.sizes, **compute.placement}
        job = TokenJob.of(opened, mllm, loading=loading, crops=training.get("crops", False), urls=training["urls"])
        training = {**training, "encode": job.on(cluster)}
    return _fill(opened, load, codec, training, compute, named=named, quiet=quiet)


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
    named: bool,
    quiet: bool,
) -> TokensReport:
    from looktwice.codecs import parse_codec
    from looktwice.token_index import add_tokens as add

    parse_codec(codec)  # a wrong name must fail before anything is loaded
    compute.set_threads()
    scorer = load()
    codec = codec if named else _stored(opened, scorer, codec, training.get("crops", False))
    with progress("visual tokens", "images") as bar:
        report = add(opened, scorer, codec, progress=lambda now: follow(bar, now), **training)
    if not quiet:
        _tell(opened, report)
    return report


def _stored(opened: Table, scorer: object, codec: str, crops: bool) -> str:
    """Return the codec of the tokens that the model has in the table, `codec` if it has none; say that it is another.

    Raises UsageError for several.
    """
    from looktwice.token_index.crops import cropped
    from looktwice.token_index.sets import demand_tokens, stored_codec

    info = demand_tokens(scorer).tokens_info()
    found = stored_codec(opened, cropped(info) if crops else info) or codec
    if found != codec:
        note(f"The table holds tokens of {info.mllm} as {found}, so this adds to them; --codec {codec} makes new ones.")
    return found


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


def follow(bar: TerminalBar, now: Progress) -> None:
    """Show the progress of a stage."""
    names = {"sample": "tokens for the codebook", "train": "training the codebook", "encode": "visual tokens"}
    bar.describe(names[now.stage])
    bar.total(now.total)
    bar.at(now.done)
