"""`looktwice eval robustness`: measure both stages on damaged images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, number, progress, say, table
from looktwice.cli.eval.benchmark import Benchmark, Name, benchmark_name, load_rerank, refuse_options
from looktwice.cli.eval.tables import interval
from looktwice.cli.groups import grouped
from looktwice.cli.index import encoder_for
from looktwice.errors import UnknownName

if TYPE_CHECKING:
    from looktwice.experiment.robustness import DamagedSide
    from looktwice.types import Encoder

SIDES: Mapping[str, tuple[DamagedSide, ...]] = {
    "query": ("query",),
    "candidate": ("candidate",),
    "both": ("query", "candidate"),
}


@grouped
def robustness(
    ctx: typer.Context,
    dataset: Name = "scenes",
    *,
    into: Annotated[Path | None, typer.Option("--out", help="Output folder [default: eval-robustness].")] = None,
    benchmark: Benchmark,
    side: Annotated[str, typer.Option(help="DamagedSide to damage: query, candidate or both.")] = "both",
    sample: Annotated[int, typer.Option(min=1, help="Number of image queries to measure.")] = 50,
    shortlist: options.Shortlist = 50,
    rerank: options.Rerank,
    fusion: options.Fusion = "0.5",
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Damage images step by step and measure both stages on one sample of image queries.

    The command also measures three remedies that need no training. It keeps finished conditions in the folder, so that
    an interrupted command continues when it is run again.

    Example: looktwice eval robustness scenes --small --side query --shortlist 20
    """
    from looktwice.experiment.robustness import RobustnessSetup, run_robustness

    name = benchmark_name(dataset)
    refuse_options(ctx, name, False, *(() if name == "table" else ("table",)))
    if side not in SIDES:
        raise UnknownName("side", side, SIDES)
    compute.set_threads()
    folder = benchmark.folder("robustness", into)
    opened = benchmark.open(name, folder, urls.allowed)
    bench = RobustnessSetup(
        opened, _encoder(benchmark, compute), load_rerank(rerank, compute, opened), shortlist, sample, fusion
    )
    with progress("damaging", "conditions") as bar:

        def done(number: int, total: int) -> None:
            bar.total(total)
            bar.at(number)

        record = run_robustness(bench, folder, SIDES[side], done)
    if json:
        emit(record)
        return
    head = ["side", "damage", ">step", "mend", ">shortlist", ">second look", ">pairs/query"]
    table(head, [_cells(row) for row in record["conditions"]])
    say(str(folder / "robustness.json"))


def _encoder(benchmark: Benchmark, compute: options.Compute) -> Encoder:
    """Load the encoder, by default the table's own. Damaged items are encoded again, so a name is not enough."""
    from looktwice.store import Table, exists

    there = benchmark.table is not None and exists(benchmark.table)
    known = Table.open(benchmark.table) if there and benchmark.table is not None else None
    return encoder_for(benchmark.encoder, known, compute)


def _cells(row: Mapping[str, Any]) -> list[object]:
    looks = [interval(row[look]) for look in ("shortlist", "second look")]
    return [*row["condition"].split("/"), *looks, number(row["pairs_per_query"], 0)]
