"""`looktwice eval`: run a benchmark, or compare runs that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, number, progress, say, table
from looktwice.cli.eval_runs import compare, interval
from looktwice.cli.eval_tell import tell, tell_problems
from looktwice.cli.index import DEFAULT_ENCODER, encoder_for
from looktwice.cli.options import refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.evaluate.datasets import Dataset
    from looktwice.experiment import Plan
    from looktwice.sources import Urls
    from looktwice.types import Encoder


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("eval", short_help="Run a benchmark, or compare two runs.")(evaluate)


def evaluate(
    ctx: typer.Context,
    dataset: Annotated[
        str | None, typer.Argument(help="A benchmark's name; scenes needs no files.", show_default=False)
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that holds the benchmark's files.")] = None,
    into: Annotated[Path | None, typer.Option("--out", help="Where everything goes [default: eval-DATASET].")] = None,
    taken: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="A table that is there already, or is to be made; with --run, the one that it was made from.",
        ),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="scenes: 500 scenes and 200 queries.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Allow counts that differ from the published ones.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help=f"The table's encoder [default: its own; where one is made, {DEFAULT_ENCODER}].")
    ] = None,
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    score_mode: options.ScoreMode = "p-label",
    retrace: options.Retrace = "off",
    fusion: options.FusionRule = "0.5",
    ties: options.Ties = "default",
    queries: options.Queries = None,
    on: Annotated[str, typer.Option(help="robustness: the benchmark whose pictures are damaged.")] = "scenes",
    side: Annotated[str, typer.Option(help="robustness: query, candidate or both.")] = "both",
    sample: Annotated[int, typer.Option(min=1, help="robustness: picture queries to measure on.")] = 50,
    tune_on: Annotated[
        str | None,
        typer.Option(help="Choose λ on these queries and leave them out of the figures: 20%, or a file of ids."),
    ] = None,
    shortlist: options.Shortlist = 50,
    codec: Annotated[
        str, typer.Option(help="What is shown of candidates: auto, pictures, or a codec in the table.")
    ] = "auto",
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="The shortlist only, no second look.")] = False,
    runs: Annotated[list[Path] | None, typer.Option("--run", help="A run to measure; twice: before, after.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="Labels, for --run.")] = None,
    measures: Annotated[list[str] | None, typer.Option("--measure", help="mAP@100, success@1, nDCG@10, …")] = None,
    allow_urls: options.AllowUrls = False,
    allow_private_urls: options.AllowPrivateUrls = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    batch_size: options.BatchSize = None,
    json: options.Json = False,
) -> None:
    """Run a benchmark (index, shortlist, second look, measures) into a folder; run again, it goes on where it stopped.

    Figures come with 95 % bootstrap intervals. What the shortlist lost is kept apart from what the second look lost,
    and queries that the second look hurt are listed in result.json and shown in report.html.

    Examples:

      looktwice eval scenes --small

      looktwice eval roxford5k --root ~/data --encoder siglip2-so400m@384 --mllm qwen2.5-vl-7b --tune-on 20%

      looktwice eval table --table photos.lt --queries queries.jsonl --qrels qrels.txt

      looktwice eval robustness --on scenes --small --side query --shortlist 20

      looktwice eval --run shortlist.trec --run second-look.trec --qrels qrels.txt --measure mAP@100
    """
    if runs:
        if dataset is not None or qrels is None:
            raise UsageError("--run is measured against --qrels FILE, without a benchmark's name.")
        refuse_unused(ctx, set(ctx.params) - {"runs", "qrels", "measures", "taken", "json", "dataset"}, "with --run")
        compare(runs, qrels, measures or ["mAP@100", "success@1"], taken, json)
        return
    if dataset is None:
        raise UsageError(f"Name a benchmark (scenes, {_names()}), or give --run and --qrels.")
    _check_names(dataset, on)
    refuse_unused(ctx, _unused(dataset, on), f"for {dataset}")
    if no_rerank:
        refuse_unused(ctx, {"mllm", "prompt", "fusion", "codec", "score_mode", "retrace", "ties"}, "with --no-rerank")
    from looktwice.experiment import Plan
    from looktwice.models.device import set_threads
    from looktwice.rank import Ties
    from looktwice.search.mllm_reranker import MllmReranker

    set_threads(threads)
    method: dict[str, Any] = {"score_mode": score_mode, "retrace": retrace, "batch_size": batch_size}
    method |= {"device": device, "dtype": dtype}
    look = None if no_rerank else MllmReranker(mllm, prompt=prompt, **method)
    if look is None and tune_on is not None:
        raise UsageError("--tune-on weighs two looks; leave out --no-rerank.")
    robust = dataset == "robustness"
    if look is None and robust:
        raise UsageError("robustness measures both looks; leave out --no-rerank.")
    urls = options.urls(allow_urls, allow_private_urls)
    rule = str(Ties.parse(ties))
    folder = into or Path(f"eval-{dataset.replace(':', '-')}{'-small' if small else ''}")
    name = on if robust else dataset
    own = name == "table"
    opened = _of_table(taken, queries, qrels, urls) if own else _opened(name, root, folder, small, partial)
    embeds = _encoder(encoder, taken, robust, device, dtype)
    plan = Plan(embeds, look, fusion, rule, shortlist, codec, tune_on, device, dtype, urls)
    if look is not None and prompt == "auto":  # what the benchmark asks, where it asks one thing
        plan = replace(plan, look=MllmReranker(mllm, prompt=_asked(opened, score_mode), **method))
    if not robust:
        _run(opened, folder, plan, taken, json)
        return
    _damage(opened, folder, plan, sample, side, json)


def _encoder(name: str | None, taken: Path | None, robust: bool, device: str, dtype: str) -> str | Encoder:
    """What to encode with: a table that is there must have been made with it. Robustness encodes its items again."""
    if name is None and not robust:
        return DEFAULT_ENCODER
    from looktwice.store import Table

    known = Table.open(taken) if taken is not None and (taken / "manifest.json").exists() else None
    if robust or known is not None:
        return encoder_for(name, known, device, dtype)
    return name or DEFAULT_ENCODER


def _asked(dataset: Dataset, mode: str) -> str:
    """The benchmark's own prompt, where it asks for what the mode reads."""
    from looktwice.score.prompting import built_in
    from looktwice.score.readout import modes

    own = dataset.prompt
    return own if own == "auto" or modes.suits(mode, built_in.get(own)) else "auto"


def _unused(dataset: str, on: str) -> set[str]:
    """Parameters that change nothing about this benchmark."""
    robust = dataset == "robustness"
    own = (on if robust else dataset) == "table"
    unused = {"measures"} | ({"root", "small", "partial"} if own else {"queries", "qrels"})
    if not robust:
        return unused | {"on", "side", "sample"}
    return unused | {"tune_on", "codec", "ties"} | (set() if own else {"taken"})


def _opened(name: str, root: Path | None, folder: Path, small: bool, partial: bool) -> Dataset:
    if name == "scenes":
        from looktwice.evaluate.scenes import FULL, SMALL, build

        if root is not None:
            raise UsageError("scenes are composed, not read; leave out --root.")
        return build(folder / "dataset", SMALL if small else FULL)
    from looktwice.evaluate.datasets import open_dataset

    if small:
        raise UsageError("--small is for scenes; other benchmarks have one size.")
    if root is None:
        raise UsageError(f"--root names the folder that holds the files of {name}; nothing is downloaded.")
    return open_dataset(name, root, work=folder, partial=partial)


def _of_table(path: Path | None, queries: Path | None, qrels: Path | None, urls: Urls) -> Dataset:
    from looktwice.evaluate.datasets import table as labelled
    from looktwice.store import Table

    if path is None or queries is None or qrels is None:
        raise UsageError("A table of yours is measured with --table T --queries Q.jsonl --qrels LABELS.")
    rows = Table.open(path).rows(labelled.COLUMNS)
    return labelled.read(rows, queries, qrels, path.name, urls)


def _damage(dataset: Dataset, folder: Path, plan: Plan, sample: int, side: str, json: bool) -> None:
    from looktwice.experiment.robustness import Bench, run_robustness

    sides = {"query": ["query"], "candidate": ["candidate"], "both": ["query", "candidate"]}.get(side)
    if sides is None or plan.look is None or isinstance(plan.encoder, str):
        raise UsageError(f"--side is query, candidate or both, not {side!r}.")
    bench = Bench(dataset, plan.encoder, plan.look, plan.shortlist, sample, plan.fusion)
    with progress("damaging", "conditions") as bar:

        def done(number: int, total: int) -> None:
            bar.total(total)
            bar.at(number)

        record = run_robustness(bench, folder, sides, done)  # type: ignore[arg-type]
    if json:
        emit(record)
    else:
        rows = [_condition(row) for row in record["conditions"]]
        table(["side", "damage", ">step", "mend", ">shortlist", ">second look", ">pairs/query"], rows)
        say(str(folder / "robustness.json"))


def _condition(row: Mapping[str, Any]) -> list[object]:
    looks = [interval(row[look]) for look in ("shortlist", "second look")]
    return [*row["condition"].split("/"), *looks, number(row["pairs_per_query"], 0)]


def _run(dataset: Dataset, folder: Path, plan: Plan, given: Path | None, json: bool) -> None:
    from looktwice.experiment import run_benchmark

    with progress("indexing", "items") as indexing, progress("asking", "queries") as searching:
        done = run_benchmark(dataset, folder, plan, table=given, indexing=indexing, searching=searching)
    record = done.outcome.record
    if json:
        emit(record)
    else:
        tell(record)
        say(str(folder / "report.html"))
    tell_problems(record)
    if done.failed:
        raise typer.Exit(3)


def _check_names(dataset: str, on: str) -> None:
    """Refuse a benchmark that there is not, before anything is asked of it."""
    from looktwice.evaluate.datasets import check_name

    check_name(dataset, ("scenes", "table", "robustness"))
    check_name(on, ("scenes", "table"))


def _names() -> str:
    from looktwice.evaluate.datasets import dataset_names

    return ", ".join(name for name in dataset_names() if not name.startswith("mmeb:")) + ", mmeb:NAME"
