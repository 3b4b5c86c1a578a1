"""`looktwice estimate`: compute the cost of a collection from config.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, size, table
from looktwice.cli.groups import grouped
from looktwice.cli.planning import Planning, plan_rows
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.estimate.cost import Estimate


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("estimate", short_help="Estimate bytes, FLOPs and hours of an index.")(estimate)


@grouped
def estimate(
    *,
    mllm: Annotated[str, typer.Option(help="A short name, a known hub id, a folder or a config.json.")],
    items: Annotated[str, typer.Option(help="Number of images, such as 100e6.")] = "1e6",
    codec: options.TokenCodec = options.DEFAULT_CODEC,
    image_size: Annotated[str, typer.Option(help="Width x height of a typical image in pixels.")] = "1024x768",
    limits: options.ImageLimits,
    shortlist: options.Shortlist = 100,
    flops: Annotated[
        str, typer.Option(help="Matmul FLOP/s of the device; the default is an H100's in bf16.")
    ] = "790e12",
    mfu: Annotated[float, typer.Option(help="Share of --flops that a run achieves.")] = 0.4,
    planning: Planning,
    json: options.Json = False,
) -> None:
    """Estimate bytes per image, FLOPs per pair, pairs/s and hours; and plan a table in a bucket, with its money.

    The figures are computed, not measured. The command loads no weights. Prices are list prices; replace them by yours.

    Example: looktwice estimate --mllm qwen2.5-vl-7b --items 100e6 --codec opq16 --resolution 560
    """
    from looktwice.estimate.cost import estimate as compute

    result = compute(
        _known(mllm),
        items=int(_number("--items", items)),
        codec=codec,
        size=_size(image_size),
        **limits.sizes,
        k=shortlist,
        flops=_number("--flops", flops),
        mfu=mfu,
    )
    made = planning.of(result)
    if json:
        emit({**result.record(), "plan": made.record()})
        return
    table(["", ""], [*_rows(result), *plan_rows(made)])


def _rows(e: Estimate) -> Iterator[tuple[str, str]]:
    yield "images", f"{e.items:,}"
    yield "codec", e.codec
    yield "tokens per image", f"{e.tokens:,} made, {e.candidate_tokens:,} shown to the language model"
    yield "bytes per image", f"{e.bytes_per_item:,} ({size(e.bytes_uncompressed)} uncompressed)"
    yield "bytes in all", f"{size(e.bytes_total)}, and a codebook of {size(e.codebook_bytes)}"
    yield "vision tower", f"{e.tower_flop:.3g} FLOP per image"
    yield "one pair", f"{e.pair_flop:.3g} FLOP ({e.naive_pair_flop:.3g} without stored tokens and a shared query)"
    yield "pairs/s", f"{e.pairs_per_second:,.0f} at {e.mfu:.0%} of {e.flops:.3g} FLOP/s"
    yield "pairs/s, ceiling", f"{e.pairs_per_second_ceiling:,.0f}"
    yield "one query", f"{e.query_seconds:.3g} s for {e.k} candidates"
    yield "making the index", f"{e.index_hours:,.3g} h on one such device"


def _known(name: str) -> str:
    """Return the hub id or the folder of a short name; return any other name unchanged."""
    from looktwice.models.catalog import BY_NAME
    from looktwice.models.checkpoints import bundled_folder

    entry = BY_NAME.get(name)
    if entry is None:
        return name
    return str(bundled_folder(name)) if entry.bundled else next(iter(entry.hub.values()))


def _number(option: str, text: str) -> float:
    try:
        value = float(text.replace("_", "").replace(",", ""))
    except ValueError:
        raise UsageError(f"{option} must be a number such as 1e6, not {text!r}.") from None
    if not 0 < value < 1e30:
        raise UsageError(f"{option} must be above 0, not {text}.")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--image-size must be WIDTHxHEIGHT such as 1024x768, not {text!r}.")
    return int(width), int(height)
