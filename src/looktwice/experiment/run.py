"""Run one benchmark from files to figures, in a folder of this layout.

OUT/items.lt  the table, unless another was given      OUT/answers.jsonl  scores, query by query
OUT/shortlist.trec, second-look.trec      OUT/result.json      OUT/report.html      OUT/pareto.svg, reliability.svg
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from looktwice.encode import load_encoder
from looktwice.errors import MediaError, UsageError
from looktwice.evaluate.datasets import Dataset, Query
from looktwice.experiment.also import Other, check_names, name_of, rescored
from looktwice.experiment.answers import collect, read_conditions
from looktwice.experiment.output import write
from looktwice.experiment.progress import Bar
from looktwice.experiment.result import Outcome, summarise
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System, tune
from looktwice.experiment.tokens import store_tokens
from looktwice.experiment.tuning import Split, split_queries
from looktwice.indexing import IndexReport, index
from looktwice.models.cluster import Cluster
from looktwice.rank import Fusion
from looktwice.search.distributed import SpreadRetriever
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats, run_manifest
from looktwice.sources import Urls
from looktwice.store import Table, exists
from looktwice.types import Encoder

SWEEP = ("p-only", "0.25", "0.5", "0.75", "rrf")
MIDDLE_SWEEP = ("maxsim=0.5,p=0.5", "maxsim=0.75,p=0.25", "maxsim=0.85,odds=0.15", "maxsim=0.65,odds=0.35")
DEPTHS = (5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a benchmark run. An encoder's name applies only to a new table.

    `look` None measures the shortlist alone. With `maxsim` there is a middle look over stored tokens, which are
    added to a table that has none; `rerank` False leaves out the second look then. `cluster` answers the queries of
    datasets without candidate lists. `tune_on` chooses the fusion
    weight on queries that are not reported. `urls` sets which images may be fetched if the table was filled from
    URLs. `also` are other rerankers, each measured on the same shortlists (see `experiment.also`).
    """

    encoder: str | Encoder = "tiny-clip"
    look: MllmReranker | None = None
    fusion: str = "auto"
    ties: str = "default"
    shortlist: int = 50
    codec: str = "auto"
    tune_on: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    urls: Urls = "refused"
    maxsim: int = 0
    maxsim_codec: str = "auto"
    zoom: bool | None = None
    shown: str = "whole"
    crops: bool = False
    rerank: bool = True
    cluster: Cluster | None = None
    also: tuple[MllmReranker, ...] = ()

    @property
    def second(self) -> bool:
        """Return whether there is a second look."""
        return self.look is not None and self.rerank


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome, its folder, and the number of unreadable items and queries."""

    outcome: Outcome
    folder: Path
    failed: int


def run_benchmark(
    dataset: Dataset, folder: Path, plan: Plan, *, table: Path | None = None, indexing: Bar, searching: Bar
) -> Done:
    """Index, search, rerank and measure. Finished work in `folder` is not repeated.

    An existing `table` is used as it is; otherwise one is filled from the dataset's items. Raises Mismatch if `folder`
    holds answers with other settings, UsageError if the table holds no relevant item, and the errors of indexing and
    searching.
    """
    check_names(plan.also)
    folder.mkdir(parents=True, exist_ok=True)
    opened, failed = _table(dataset, table, folder / "items.lt", plan, indexing)
    if plan.maxsim and plan.look is not None:
        _store(opened, plan.look, plan, indexing)
    cluster = plan.cluster if dataset.candidates is None else None
    made: Any = Retriever if cluster is None else partial(SpreadRetriever, cluster)
    retriever: Retriever = made(
        opened if cluster is None else [opened.path],
        plan.encoder if not isinstance(plan.encoder, str) else None,
        plan.look,
        fusion=plan.fusion,
        ties=plan.ties,
        shortlist=plan.shortlist,
        maxsim=plan.maxsim,
        maxsim_codec=plan.maxsim_codec,
        zoom=plan.zoom,
        shown=plan.shown,
        codec=plan.codec,
        urls=plan.urls,
        device=plan.device,
        dtype=plan.dtype,
    )
    known = _known(dataset, opened)
    answers, broken = _asked(dataset, retriever, folder, plan, searching)
    split = None if plan.tune_on is None else split_queries(plan.tune_on, dataset.qrels)
    fusion, tuning = _tuned(dataset, answers, plan, retriever.config.fusion, split)
    others = _others(dataset, answers, retriever, folder, plan, split, searching)
    reported = dataset if split is None else _only(dataset, split.reported)
    systems = [System("shortlist", None, plan.shortlist)]
    if plan.maxsim:
        systems.append(System("middle look", None, plan.shortlist, middle=True))
    systems += [other.system for other in others]
    if plan.second:
        systems.append(System("second look", fusion, plan.shortlist, plan.ties))
    sweep = [*(_sweep(plan, fusion) if plan.second else []), *(other.alone for other in others)]
    conditions = read_conditions(folder)
    costs = _bytes(opened, conditions)
    outcome = summarise(reported, answers, systems, known=known, bytes_per_item=costs, sweep=sweep, others=others)
    outcome.record.update(
        tuning=tuning,
        unreadable_queries={query.id: str(error) for query, error in broken},
        unreadable_items=failed,
        manifest=run_manifest(
            {**conditions, "fusion": str(fusion)}, RunStats.total(answer.stats for answer in answers)
        ),
    )
    write(folder, outcome, reported, answers, systems, retriever.loader.find)
    return Done(outcome, folder, failed + len(broken))


def _table(dataset: Dataset, given: Path | None, own: Path, plan: Plan, bar: Bar) -> tuple[Table, int]:
    if given is not None and exists(given):
        return Table.open(given), 0
    path = given or own
    there = exists(path)
    encoder: Encoder
    if isinstance(plan.encoder, str):
        encoder = load_encoder(plan.encoder, device=plan.device, dtype=plan.dtype)
    else:
        encoder = plan.encoder
    table = Table.open(path, encoder.info) if there else Table.create(path, encoder.info)
    if isinstance(dataset.items, list):
        bar.total(len(dataset.items))
    report: IndexReport = index(table, dataset.items, encoder, progress=lambda so_far: bar.at(so_far.met))
    if table.index_is_due:
        table.build_index()
    return table, report.failed


def _store(table: Table, look: MllmReranker, plan: Plan, bar: Bar) -> None:
    """Store tokens if the table has none, and with `crops` those of crops, unless it is complete."""
    if not table.manifest.tokens and plan.second:
        store_tokens(table, look, plan.codec, bar, plan.urls, announced=True)
    if plan.crops or not table.manifest.tokens:
        store_tokens(table, look, plan.maxsim_codec, bar, plan.urls, crops=plan.crops, announced=True)


def _known(dataset: Dataset, table: Table) -> set[str]:
    """Return the relevant items that the table holds. Raises UsageError if it holds none."""
    relevant = {name for labels in dataset.qrels.values() for name, grade in labels.items() if grade > 0}
    known = {str(row["id"]) for row in table.lookup(relevant, ["id"])}
    if not known:
        raise UsageError(
            f"{table.path} holds none of the {len(relevant):,} relevant items of {dataset.name}; pass its own --table."
        )
    return known


def _asked(
    dataset: Dataset, retriever: Retriever, folder: Path, plan: Plan, bar: Bar
) -> tuple[list[StoredAnswer], list[tuple[Query, MediaError]]]:
    answers: list[StoredAnswer] = []
    broken: list[tuple[Query, MediaError]] = []
    bar.total(len(dataset.queries))
    for one in collect(dataset, retriever, folder, {"codec": plan.codec}, rerank=plan.second or not plan.maxsim):
        if isinstance(one, StoredAnswer):
            answers.append(one)
        else:
            broken.append(one)
        bar.at(len(answers) + len(broken))
    return answers, broken


def _tuned(
    dataset: Dataset, answers: Sequence[StoredAnswer], plan: Plan, fusion: Fusion, split: Split | None
) -> tuple[Fusion, dict[str, Any] | None]:
    if split is None:
        return fusion, None
    part = _only(dataset, split.tuned_on)
    chosen = [answer for answer in answers if answer.query in split.tuned_on]
    fusion, values = tune(chosen, part.qrels, dataset.measures[0], plan.shortlist, plan.ties)
    about = {"rule": split.rule, "queries": len(split.tuned_on), "measure": dataset.measures[0]}
    return fusion, {**about, "fusion": str(fusion), "values": values}


def _others(
    dataset: Dataset,
    answers: Sequence[StoredAnswer],
    retriever: Retriever,
    folder: Path,
    plan: Plan,
    split: Split | None,
    bar: Bar,
) -> list[Other]:
    """Score the shortlists with the other rerankers. Their fusion is chosen as that of the second look."""
    found = []
    for look in plan.also:
        own = rescored(dataset, answers, look, retriever, folder, plan.urls, bar)
        fusion, _ = _tuned(dataset, own, plan, retriever.config.fusion, split)
        found.append(Other.of(name_of(look), own, fusion, plan.shortlist))
    return found


def _only(dataset: Dataset, queries: frozenset[str]) -> Dataset:
    """Return the dataset with the labels of some queries only."""
    groups = {
        name: {query: labels for query, labels in group.items() if query in queries}
        for name, group in dataset.groups.items()
    }
    qrels = {query: labels for query, labels in dataset.qrels.items() if query in queries}
    return replace(dataset, qrels=qrels, groups=groups)


def _sweep(plan: Plan, fusion: Fusion) -> list[System]:
    weights = [Fusion.parse(name) for name in (*SWEEP, *(MIDDLE_SWEEP if plan.maxsim else ()))]
    depths = [depth for depth in DEPTHS if depth < plan.shortlist]
    return [
        *(System(f"fusion {weight}", weight, plan.shortlist, plan.ties) for weight in weights if weight != fusion),
        *(System(f"shortlist {depth}", fusion, depth, plan.ties) for depth in depths),
    ]


def _bytes(table: Table, conditions: Mapping[str, Any]) -> tuple[float, float]:
    """Return bytes per item on disk: those of the first stage, which reads no stored tokens, and of both stages."""
    parts = table.info()["bytes_per_item"]
    sources = [*conditions.get("candidates_from", ()), *conditions.get("middle_look", ())]
    stored = any("tokens_key" in source for source in sources)
    first = round(parts["total"] - parts["tokens"], 1)
    return first, float(parts["total"]) if stored else first
