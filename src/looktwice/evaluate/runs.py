"""Measure and compare existing runs for `looktwice eval compare`. This module knows files, no model and no table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.evaluate.compare import compare
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.measures import Result
from looktwice.evaluate.trec import Qrels, Run


def measure_runs(
    runs: Mapping[Path, Run], qrels: Qrels, names: Sequence[str], known: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Return one record per measure: means with intervals, for two runs their difference, and the problems of each.

    `known` holds the ids of the collection, if available. Raises UsageError for a run that shares no query with the
    labels, or no item with the collection, and the errors of `measure`.
    """
    for path, run in runs.items():
        _comparable(path, run, qrels, known)
    found = {path: measure_group(run, qrels, names) for path, run in runs.items()}
    problems = {str(path): _problems(runs[path], qrels, result, known) for path, result in found.items()}
    return [_record(name, found, problems) for name in names]


def _record(name: str, found: Mapping[Path, Result], problems: Mapping[str, Any]) -> dict[str, Any]:
    results = list(found.values())
    intervals = {str(path): result.interval(name)._asdict() for path, result in found.items()}
    record = {"measure": name, "queries": results[0].queries, "runs": intervals, "problems": problems}
    if len(results) == 2:
        change = compare(results[1].per_query[name], results[0].per_query[name])
        record |= {"difference": change.difference._asdict(), "p": change.p}
        record |= {"helped": len(change.helped), "hurt": len(change.hurt), "same": change.same}
    return record


def _comparable(path: Path, run: Run, qrels: Qrels, known: Collection[str] | None) -> None:
    if not run.keys() & qrels.keys():
        raise UsageError(f"{path} and the labels share no query id; use the same ids in both.")
    ids = {name for rows in run.values() for name, _ in rows}
    if known is not None and ids and not ids & set(known):
        raise UsageError(
            f"None of the ids in {path}, such as {min(ids)!r}, is in the table; pass the table that it came from."
        )


def _problems(run: Run, qrels: Qrels, result: Result, known: Collection[str] | None) -> dict[str, Any]:
    """Return a count for each rule in docs/reference/measures.md, with the first few ids."""
    lists = {query: [name for name, _ in run.get(query, ())] for query in qrels}
    found: dict[str, Any] = {
        "queries_without_an_answer": len(result.missing),
        "queries_without_labels": len(result.unlabelled),
        "queries_without_relevant_items": len(result.without_relevant),
        "items_without_a_label": sum(name not in qrels[query] for query, names in lists.items() for name in names),
        "items": sum(map(len, lists.values())),
        "such_as": {"missing": result.missing[:5], "unlabelled": result.unlabelled[:5]},
    }
    if known is not None:
        relevant = {name for labels in qrels.values() for name, grade in labels.items() if grade > 0}
        unknown = {name for names in lists.values() for name in names} - set(known)
        found["unknown_items"] = len(unknown)
        found["relevant_items_outside_the_table"] = len(relevant - set(known))
        found["such_as"]["unknown"] = sorted(unknown)[:5]
    return found
