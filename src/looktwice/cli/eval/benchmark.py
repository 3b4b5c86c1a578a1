"""Options that choose the benchmark, for `eval run` and `eval robustness`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.calibrate import check_items
from looktwice.cli.groups import names
from looktwice.cli.unused import refuse_middle, refuse_servers, refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.evaluate.datasets import Dataset
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.sources import Urls

Name = Annotated[
    str | None,
    typer.Argument(metavar="DATASET", help="A benchmark's name; scenes needs no files.", show_default=False),
]


@dataclass(frozen=True)
class Benchmark:
    """Files and table of the benchmark."""

    root: Annotated[Path | None, typer.Option(help="The folder that holds the benchmark's files.")] = None
    small: Annotated[bool, typer.Option("--small", help="scenes: 500 scenes and 200 queries.")] = False
    partial: Annotated[bool, typer.Option("--partial", help="Allow counts that differ from the published ones.")] = (
        False
    )
    table: Annotated[Path | None, typer.Option("--table", help="Existing table, or path for a new one.")] = None
    queries: Annotated[
        Path | None,
        typer.Option(help='table: JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
    ] = None
    qrels: Annotated[Path | None, typer.Option(help="table: labels in TREC format.")] = None
    encoder: Annotated[
        str | None,
        typer.Option(help=f"The table's encoder [default: its own; for a new table {options.DEFAULT_ENCODER}]."),
    ] = None

    def folder(self, name: str, into: Path | None) -> Path:
        """Return the output folder."""
        return into or Path(f"eval-{name.replace(':', '-')}{'-small' if self.small else ''}")

    def open(self, name: str, folder: Path, urls: Urls) -> Dataset:
        """Read the benchmark. Raises UsageError for missing options and for ones that it cannot use."""
        if name == "table":
            return self._labelled(urls)
        if name == "scenes":
            from looktwice.evaluate.scenes import FULL, SMALL, build

            if self.root is not None:
                raise UsageError("scenes generates its images and reads no files; leave out --root.")
            return build(folder / "dataset", SMALL if self.small else FULL)
        from looktwice.evaluate.datasets import open_dataset

        if self.small:
            raise UsageError(f"{name} has only one size; leave out --small, which only scenes supports.")
        if self.root is None:
            raise UsageError(f"{name} needs its files, which looktwice does not download; pass --root FOLDER.")
        return open_dataset(name, self.root, work=folder, partial=self.partial)

    def _labelled(self, urls: Urls) -> Dataset:
        from looktwice.evaluate.datasets import table as labelled
        from looktwice.store import Table

        if self.table is None or self.queries is None or self.qrels is None:
            raise UsageError("table needs three options; pass --table TABLE --queries FILE.jsonl --qrels LABELS.")
        opened = Table.open(self.table)
        found = labelled.read(opened.rows(labelled.COLUMNS), self.queries, self.qrels, self.table.name, urls)
        check_items(opened, {query.id: found.qrels[query.id] for query in found.queries}, self.qrels)
        return found


def refuse_options(ctx: typer.Context, name: str, no_rerank: bool, *more: str) -> None:
    """Refuse options that have no effect on this benchmark, and the options `more`."""
    own = ("root", "small", "partial") if name == "table" else ("queries", "qrels")
    refuse_unused(ctx, {*own, *more}, f"for {name}")
    if no_rerank:
        second = {*names(options.Rerank), "fusion", "ties", "codec", "tune_on", "also"}
        refuse_unused(ctx, second, "with --no-rerank")
    refuse_servers(ctx)
    refuse_middle(ctx, ctx.params["maxsim"])


def benchmark_name(name: str | None) -> str:
    """Return the benchmark's name. Raises UsageError without a name, UnknownName for an unknown one."""
    from looktwice.evaluate.datasets import check_name, dataset_names

    if name is None:
        known = [one for one in dataset_names() if not one.startswith("mmeb:")]
        raise UsageError(f"The benchmark is missing; name one of: scenes, table, {', '.join(known)}, mmeb:NAME.")
    if name == "robustness":
        raise UsageError("robustness is a verb, not a benchmark; use `looktwice eval robustness DATASET`.")
    check_name(name, ("scenes", "table"))
    return name


def load_rerank(rerank: options.Rerank, compute: options.Compute, dataset: Dataset) -> MllmReranker:
    """Return the reranker, with the benchmark's own prompt if the score mode can read it."""
    from looktwice.score.prompting import built_in
    from looktwice.score.readout import modes

    own = dataset.prompt
    fits = own == "auto" or modes.suits(rerank.score_mode, built_in.get(own))
    return rerank.load(compute, prompt=own if rerank.prompt == "auto" and fits else None)
