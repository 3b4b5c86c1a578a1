"""`looktwice eval run`: run one benchmark, from files to figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import emit, progress, say
from looktwice.cli.eval.benchmark import Benchmark, Name, benchmark_name, load_rerank, refuse_options
from looktwice.cli.eval.tables import tell, tell_problems
from looktwice.cli.groups import grouped
from looktwice.cli.index import encoder_for
from looktwice.cli.summary import tell_spending

if TYPE_CHECKING:
    from looktwice.evaluate.datasets import Dataset
    from looktwice.experiment import Plan
    from looktwice.types import Encoder


Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Another re-ranker on the same shortlists, as one more row: rerank:NAME (trained, sentence-transformers), "
        "rerank+http://HOST:PORT/v1#MODEL, or any --mllm. Repeatable.",
    ),
]
Crops = Annotated[bool, typer.Option("--crops", help="Store tokens of four crops of each image, too, for --maxsim.")]
TuneOn = Annotated[
    str | None,
    typer.Option(help="Choose λ on these queries and exclude them from the figures: 20%, or a file of ids."),
]


@grouped
def run(
    ctx: typer.Context,
    dataset: Name = None,
    *,
    into: Annotated[Path | None, typer.Option("--out", help="Output folder [default: eval-DATASET].")] = None,
    benchmark: Benchmark,
    tune_on: TuneOn = None,
    also: Also = None,
    shortlist: options.Shortlist = 50,
    no_rerank: options.NoRerank = False,
    rerank: options.Rerank,
    middle: options.Middle,
    crops: Crops = False,
    fusion: options.Fusion = "auto",
    ties: options.Ties = "default",
    codec: options.Codec = "auto",
    spread: Distribution,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Run a benchmark into a folder: index, shortlist, second look, measures. Run it again to continue after a stop.

    Figures come with 95 % bootstrap intervals. Losses of the shortlist and of the second look are reported separately.
    result.json lists the queries that the second look hurt, and report.html shows them.

    Examples:

      looktwice eval run scenes --small

      looktwice eval run roxford5k --root ~/data --encoder siglip2-so400m@384 --mllm qwen2.5-vl-7b --tune-on 20%

      looktwice eval run folder --root ~/things --mllm qwen2.5-vl-7b --also rerank:Qwen/Qwen3-VL-Reranker-2B

      looktwice eval run table --table photos.lt --queries queries.jsonl --qrels qrels.txt
    """
    name = benchmark_name(dataset)
    refuse_options(ctx, name, no_rerank and not middle.maxsim)
    from looktwice.experiment import Plan
    from looktwice.rank import Ties

    compute.set_threads()
    # refuse a wrong setting before reading any file
    look = None if no_rerank and not middle.maxsim else rerank.load(compute)
    rule = str(Ties.parse(ties))
    folder = benchmark.folder(name, into)
    opened = benchmark.open(name, folder, urls.allowed)
    cluster = spread.connect(ctx)
    if spread.dry_run:
        return spread.plan(cluster, {"dataset": opened.name, "queries": len(opened.queries)}, json)
    if look is not None:
        look = load_rerank(rerank, compute, opened)
    encoder = _encoder(benchmark, compute)
    where = compute.placement
    others = tuple(rerank.other(name, look.prompt, compute) for name in also or () if look is not None)
    own: dict[str, Any] = {**middle.rules, "maxsim": middle.maxsim or 0, "crops": crops, "rerank": not no_rerank}
    own |= {"cluster": cluster, "also": others}
    plan = Plan(encoder, look, fusion, rule, shortlist, codec, tune_on, urls=urls.allowed, **own, **where)
    _run(opened, folder, plan, benchmark.table, json)


def _encoder(benchmark: Benchmark, compute: options.Compute) -> str | Encoder:
    """Return the name of a new table's encoder, or the loaded encoder if one is named for an existing table."""
    from looktwice.store import Table, exists

    table, name = benchmark.table, benchmark.encoder
    if name is None or table is None or not exists(table):
        return name or options.DEFAULT_ENCODER
    return encoder_for(name, Table.open(table), compute)


def _run(dataset: Dataset, folder: Path, plan: Plan, given: Path | None, json: bool) -> None:
    from looktwice.experiment import run_benchmark

    with progress("indexing", "items") as indexing, progress("searching", "queries") as searching:
        done = run_benchmark(dataset, folder, plan, table=given, indexing=indexing, searching=searching)
    record = done.outcome.record
    if json:
        emit(record)
    else:
        tell(record)
        say(str(folder / "report.html"))
    tell_problems(record)
    tell_spending(record["manifest"].get("second_look") or [])
    if done.failed:
        raise typer.Exit(3)
