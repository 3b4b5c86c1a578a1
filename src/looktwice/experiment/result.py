"""Measure a benchmark run, as plain data: systems, losses by stage, queries that were hurt, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from looktwice.evaluate import Qrels, Result, Run
from looktwice.evaluate.bootstrap import interval
from looktwice.evaluate.compare import compare
from looktwice.evaluate.confidence import confidence_measures, mean_of_means
from looktwice.evaluate.datasets import Dataset
from looktwice.evaluate.groups import has_relevant, measure_group
from looktwice.experiment.also import Other, told
from looktwice.experiment.counts import compared
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System, fused, ideal, perfect
from looktwice.rank.calibration import ece, reliability
from looktwice.search.run_record import RunStats

COSTS = ("seconds_per_query", "pairs_per_query", "bytes_per_item")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run.

    `record` is the JSON result. `before` and `after` hold the main measure per query. `runs` holds the ranking of each
    system, without the sweep.
    """

    record: dict[str, Any]
    runs: Mapping[str, Run]
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the table: one row per system."""
        return list(self.record["systems"])


def summarise(
    dataset: Dataset,
    answers: Sequence[StoredAnswer],
    systems: Sequence[System],
    *,
    known: set[str],
    bytes_per_item: tuple[float, float],
    sweep: Sequence[System] = (),
    others: Sequence[Other] = (),
) -> Outcome:
    """Measure `systems` (first the shortlist, last the reported one) and `sweep` on all answers.

    `known` are the ids that the table holds. `bytes_per_item` are the bytes that the first stage reads, and both
    stages. `others` are other rerankers, whose systems stand in both lists with answers of their own. Queries without
    an answer count as 0. Only queries with labels are reported.
    """
    own = {name: rows for other in others for name, rows in other.rows.items()}

    def of(system: System) -> list[StoredAnswer]:
        return [answer for answer in own.get(system.name, answers) if answer.query in dataset.qrels]

    answers = [answer for answer in answers if answer.query in dataset.qrels]
    runs = {system.name: fused(of(system), system) for system in systems}
    found = {name: measure_group(run, dataset.qrels, dataset.measures) for name, run in runs.items()}
    for system in sweep:  # one by one, as all rankings of a large benchmark take gigabytes
        found[system.name] = measure_group(fused(of(system), system), dataset.qrels, dataset.measures)
    main = dataset.measures[0]
    first, last = systems[0], systems[-1]
    before, after = (found[system.name].per_query[main] for system in (first, last))
    record: dict[str, Any] = {
        "dataset": {"name": dataset.name, "measures": list(dataset.measures), "notes": list(dataset.notes)},
        "problems": _problems(dataset, found[first.name], known, answers),
        "systems": [_row(s, found[s.name], dataset, of(s), bytes_per_item) for s in systems],
        "sweep": [_row(s, found[s.name], dataset, of(s), bytes_per_item) for s in sweep],
    }
    if last is not first:
        record["loss"] = _loss(dataset, answers, last, found, main)
        record["second_look"] = {"measure": main, **compared(compare(after, before))}
        record["reliability"] = _reliability(dataset.qrels, answers)
    beside = [system.name for system in systems[:-1] if system.middle] + [other.system.name for other in others]
    if beside:
        record["also"] = list(told(beside, found, main, first.name, last.name))
    rows = [*record["systems"], *record["sweep"]]
    record["pareto"] = {cost: [row["system"] for row in front(rows, cost, main)] for cost in COSTS}
    record["groups"] = {**dict(_means(dataset, runs, systems)), **dict(_groups(dataset, runs, systems))}
    if dataset.confidence:
        record["confidence"] = {name: confidence_measures(run, dataset.qrels) for name, run in runs.items()}
    return Outcome(record, runs, before, after)


def front(rows: Sequence[Mapping[str, Any]], cost: str, measure: str) -> list[Mapping[str, Any]]:
    """Return the Pareto front, cheapest first: no other row is as good for less, or better for as little.

    >>> rows = [{"s": c, "measures": {"AP": {"mean": q}}} for c, q in ((1, 0.2), (2, 0.1), (2, 0.6), (3, 0.6))]
    >>> [row["s"] for row in front(rows, "s", "AP")]
    [1, 2]
    """
    best: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row[cost], -row["measures"][measure]["mean"])):
        if not best or row["measures"][measure]["mean"] > best[-1]["measures"][measure]["mean"]:
            best.append(row)
    return best


def _reliability(qrels: Qrels, answers: Sequence[StoredAnswer]) -> dict[str, Any]:
    """Measure how often pairs of a given p are relevant. Junk is skipped; unlabelled pairs are not relevant."""
    pairs = [
        (p, qrels[answer.query].get(name, 0) > 0)
        for answer in answers
        for name, p in zip(answer.ids, answer.p, strict=False)
        if p is not None and qrels[answer.query].get(name, 0) >= 0
    ]
    values, labels = [p for p, _ in pairs], [relevant for _, relevant in pairs]
    points = [list(point) for point in reliability(values, labels)]
    return {
        "pairs": len(pairs),
        "relevant": sum(labels),
        "ece": ece(values, labels) if pairs else None,
        "points": points,
    }


def _row(
    system: System,
    result: Result,
    dataset: Dataset,
    answers: Sequence[StoredAnswer],
    bytes_per_item: tuple[float, float],
) -> dict[str, Any]:
    queries, spent = max(1, len(answers)), RunStats.total(answer.stats for answer in answers).seconds
    first = spent["encode"] + spent["search"] + (spent["maxsim"] if system.fusion or system.middle else 0.0)
    pairs = sum(len(answer.p[: system.depth]) for answer in answers) if system.fusion else 0
    scored = sum(len(answer.p) for answer in answers)
    second = (spent["read"] + spent["score"]) * (pairs / scored if scored else 0)
    return {
        "system": system.name,
        "fusion": None if system.fusion is None else str(system.fusion),
        "shortlist": system.depth if system.fusion else 0,
        "queries": result.queries,
        "measures": {name: result.interval(name)._asdict() for name in dataset.measures},
        "pairs_per_query": round(pairs / queries, 2),
        "seconds_per_query": round((first + second) / queries, 5),
        "pairs_per_second": round(pairs / second, 2) if second else None,
        "bytes_per_item": bytes_per_item[system.fusion is not None or system.middle],
    }


def _problems(dataset: Dataset, result: Result, known: set[str], answers: Sequence[StoredAnswer]) -> dict[str, Any]:
    relevant = {name for labels in dataset.qrels.values() for name, grade in labels.items() if grade > 0}
    outside = sorted(relevant - known)
    return {
        "queries_without_relevant_items": len(result.without_relevant),
        "queries_without_an_answer": len(result.missing),
        "relevant_items_outside_the_table": len(outside),
        "pairs_without_a_score": sum(p is None for answer in answers for p in answer.p),
        "groups_without_relevant_items": sum(not has_relevant(labels) for labels in dataset.groups.values()),
        "such_as": outside[:5],
    }


def _loss(
    dataset: Dataset, answers: Sequence[StoredAnswer], last: System, found: Mapping[str, Result], main: str
) -> dict[str, Any]:
    """Split the loss from the best possible value to the measured one by stage."""
    best = measure_group(ideal(dataset.qrels), dataset.qrels, [main])[main]
    oracle = measure_group(perfect(answers, dataset.qrels, last.depth), dataset.qrels, [main])[main]
    reached = found[last.name][main]
    return {
        "measure": main,
        "best_possible": best,
        "perfect_second_look": oracle,
        "lost_by_the_shortlist": best - oracle,
        "lost_by_the_second_look": oracle - reached,
    }


def _groups(dataset: Dataset, runs: Mapping[str, Run], systems: Sequence[System]) -> Iterator[tuple[str, Any]]:
    for name, labels in dataset.groups.items():
        if not has_relevant(labels):
            continue
        results = {system.name: measure_group(runs[system.name], labels, dataset.measures) for system in systems}
        yield (
            name,
            {
                "queries": next(iter(results.values())).queries,
                **{
                    system: {m: result.interval(m)._asdict() for m in dataset.measures}
                    for system, result in results.items()
                },
            },
        )


def _means(dataset: Dataset, runs: Mapping[str, Run], systems: Sequence[System]) -> Iterator[tuple[str, Any]]:
    """Yield groups whose figure is the mean of other groups' figures; those without any query are left out."""
    for name, parts in dataset.means.items():
        labels = {part: dataset.groups[part] for part in parts if has_relevant(dataset.groups.get(part, {}))}
        if not labels:
            continue
        record: dict[str, Any] = {"queries": sum(map(len, labels.values()))}
        for system in systems:
            found = [measure_group(runs[system.name], part, dataset.measures) for part in labels.values()]
            values = {
                m: mean_of_means({str(i): one.per_query[m] for i, one in enumerate(found)}) for m in dataset.measures
            }
            record[system.name] = {m: interval(each)._asdict() for m, each in values.items()}
        yield name, record
