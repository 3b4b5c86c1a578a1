"""`looktwice eval robustness`: measure all stages on damaged images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, number, progress, say, table
from looktwice.cli.eval.benchmark import Benchmark, Name, benchmark_name, load_rerank, refuse_options
from looktwice.cli.eval.tables import interval
from looktwice.cli.groups import grouped
from looktwice.cli.index import encoder_for
from looktwice.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from looktwice.experiment.robustness import DamagedSide
    from looktwice.search.middle_stage import MiddleStage
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.types import Encoder

Maxsim = Annotated[
    int,
    typer.Option(min=0, help="Add a middle look over the tokens of --table; only queries are damaged.", metavar="N"),
]
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
    side: Annotated[str, typer.Option(help="Side to damage: query, candidate or both.")] = "both",
    sample: Annotated[int, typer.Option(min=1, help="Number of image queries to measure.")] = 50,
    shortlist: options.Shortlist = 50,
    rerank: options.Rerank,
    maxsim: Maxsim = 0,
    zoom: options.Zoom = None,
    fusion: options.Fusion = "auto",
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Damage images step by step and measure all stages on one sample of image queries.

    The command also measures three remedies that need no training. It keeps finished conditions in the folder, so that
    an interrupted command continues when it is run again.

    Examples:

      looktwice eval robustness scenes --small --side query --shortlist 20

      looktwice eval robustness scenes --small --side query --maxsim 500 --table eval-scenes-small/items.lt
    """
    from looktwice.experiment.robustness import RobustnessSetup, run_robustness
    from looktwice.search.ranking_config import RankingConfig

    name = benchmark_name(dataset)
    refuse_options(ctx, name, False, *(() if name == "table" or maxsim else ("table",)))
    if side not in SIDES:
        raise UnknownName("side", side, SIDES)
    if maxsim and side != "query":
        raise UsageError("A middle look has stored tokens of undamaged candidates only; add --side query.")
    if maxsim and benchmark.table is None:
        raise UsageError("A middle look needs stored tokens; pass --table TABLE: items.lt of `eval run --crops`.")
    compute.set_threads()
    folder = benchmark.folder("robustness", into)
    opened = benchmark.open(name, folder, urls.allowed)
    encoder, look = _encoder(benchmark, compute), load_rerank(rerank, compute, opened)
    rule = str(RankingConfig.of(fusion, maxsim=maxsim).fusion)
    middle = _middle(benchmark.table, look, maxsim, bool(zoom), encoder)
    bench = RobustnessSetup(opened, encoder, look, shortlist, sample, rule, middle=middle)
    with progress("damaging", "conditions") as bar:

        def done(number: int, total: int) -> None:
            bar.total(total)
            bar.at(number)

        record = run_robustness(bench, folder, SIDES[side], done)
    if json:
        emit(record)
        return
    head = ["side", "damage", ">step", "mend", *(f">{stage}" for stage in bench.stages), ">pairs/query"]
    table(head, [_cells(row, bench.stages) for row in record["conditions"]])
    say(str(folder / "robustness.json"))


def _encoder(benchmark: Benchmark, compute: options.Compute) -> Encoder:
    """Load the encoder, by default the table's own. Damaged items are encoded again, so a name is not enough."""
    from looktwice.store import Table, exists

    there = benchmark.table is not None and exists(benchmark.table)
    known = Table.open(benchmark.table) if there and benchmark.table is not None else None
    return encoder_for(benchmark.encoder, known, compute)


def _middle(table: Path | None, look: MllmReranker, depth: int, zoom: bool, encoder: Encoder) -> MiddleStage | None:
    from looktwice.search.middle_stage import MiddleStage
    from looktwice.store import Table

    if not depth or table is None:
        return None
    return MiddleStage(look, Table.open(table), depth, own=lambda: encoder, zoom=zoom)


def _cells(row: Mapping[str, Any], stages: Sequence[str]) -> list[object]:
    looks = [interval(row[stage]) for stage in stages]
    return [*row["condition"].split("/"), *looks, number(row["pairs_per_query"], 0)]
