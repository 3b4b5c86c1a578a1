"""The part of `looktwice eval` that measures and compares runs which are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looktwice.cli.console import emit, note, plural, table
from looktwice.errors import UsageError


def compare(paths: list[Path], labels: Path, names: list[str], collection: Path | None, json: bool) -> None:
    """Measure one run, or two against each other. `collection` is the table that they were made from, if given."""
    from looktwice.evaluate import read_qrels, read_run
    from looktwice.evaluate.runs import measure_runs

    if len(paths) > 2 or len(set(paths)) < len(paths):
        raise UsageError("Give one run to measure it, or two to compare them: --run BEFORE --run AFTER.")
    qrels, runs = read_qrels(labels), {path: read_run(path) for path in paths}
    known = None if collection is None else _held(collection, runs, qrels)
    records = measure_runs(runs, qrels, names, known)
    for record in records if json else ():
        emit(record)
    if not json:
        _tell_comparison(records)
    for path, found in records[0]["problems"].items():
        _run_problems(path, found)
    if count := records[0]["problems"][str(paths[0])]["queries_without_relevant_items"]:
        note(f"{plural(count, 'query', 'queries')} with nothing relevant are left out.")


def _held(collection: Path, runs: Mapping[Path, Any], qrels: Mapping[str, Any]) -> set[str]:
    """Of all ids that runs and labels name, those that the table holds."""
    from looktwice.store import Table

    named = {name for run in runs.values() for rows in run.values() for name, _ in rows}
    named |= {name for labels in qrels.values() for name in labels}
    return {str(row["id"]) for row in Table.open(collection).lookup(named, ["id"])}


def _run_problems(path: str, found: Mapping[str, Any]) -> None:
    for key, what, kind in (
        ("queries_without_an_answer", "lacks", "missing"),
        ("queries_without_labels", "has unlabelled", "unlabelled"),
    ):
        if found[key]:
            note(f"{path} {what} {plural(found[key], 'query', 'queries')}, such as {found['such_as'][kind][0]}.")
    if found.get("unknown_items"):
        such = found["such_as"]["unknown"][0]
        note(f"{path} names {plural(found['unknown_items'], 'item')} that the table does not hold, such as {such}.")
    if found.get("relevant_items_outside_the_table"):
        note(f"{plural(found['relevant_items_outside_the_table'], 'relevant item')} are not in the table.")


def _tell_comparison(records: list[dict[str, Any]]) -> None:
    runs = list(records[0]["runs"])
    head = ["measure", ">queries", *(f">{run}" for run in runs)]
    two = "difference" in records[0]
    rows = []
    for record in records:
        row = [record["measure"], record["queries"], *(interval(record["runs"][run]) for run in runs)]
        if two:
            change = record["difference"]
            row += [f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]", f"{record['p']:.4f}"]
            row += [record["helped"], record["hurt"]]
        rows.append(row)
    table([*head, *([">difference", ">p", ">gained", ">lost"] if two else [])], rows)


def interval(found: Mapping[str, float]) -> str:
    """A mean with its interval, for a table."""
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
