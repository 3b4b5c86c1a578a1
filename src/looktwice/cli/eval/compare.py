"""`looktwice eval compare`: measure one run file, or compare two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, table
from looktwice.cli.eval.tables import interval
from looktwice.errors import UsageError

MEASURES = ("mAP@100", "success@1")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="BEFORE [AFTER]", help="One run to measure, or two to compare.")
    ],
    *,
    qrels: Annotated[Path, typer.Option(help="Labels in TREC format.")],
    measure: Annotated[list[str] | None, typer.Option(help="mAP@100, success@1, nDCG@10, … Repeatable.")] = None,
    collection: Annotated[
        Path | None, typer.Option("--table", help="The table that the runs came from; counts ids that it lacks.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure a run, or compare two: means with 95 % bootstrap intervals, difference, p-value, queries gained and lost.

    Example: looktwice eval compare shortlist.trec second-look.trec --qrels qrels.txt --measure mAP@100
    """
    from looktwice.evaluate import read_qrels, read_run
    from looktwice.evaluate.runs import measure_runs

    if len(runs) > 2 or len(set(runs)) < len(runs):
        raise UsageError("eval compare takes one or two different runs; name one to measure, or two to compare.")
    labels, rankings = read_qrels(qrels), {path: read_run(path) for path in runs}
    known = None if collection is None else _held(collection, rankings, labels)
    records = measure_runs(rankings, labels, measure or MEASURES, known)
    _write(records, json)
    _note_depths(rankings)
    for path, found in records[0]["problems"].items():
        _run_problems(path, found)
    if count := records[0]["problems"][str(runs[0])]["queries_without_relevant_items"]:
        note(f"{plural(count, 'query', 'queries')} without relevant items {'is' if count == 1 else 'are'} skipped.")


def _write(records: list[dict[str, Any]], json: bool) -> None:
    for record in records if json else ():
        emit(record)
    if not json:
        _tell_comparison(records)


def _note_depths(runs: Mapping[Path, Any]) -> None:
    """Say that one run ranks fewer documents than the other: measures that look deeper favour the longer one."""
    depths = {path: max(map(len, run.values()), default=0) for path, run in runs.items()}
    least = min(depths.values())
    if least < max(depths.values()):
        found = ", ".join(f"{path} up to {depth:,}" for path, depth in depths.items())
        note(f"The runs differ in depth ({found} documents a query): compare only measures that stop at {least:,}.")


def _held(collection: Path, runs: Mapping[Path, Any], qrels: Mapping[str, Any]) -> set[str]:
    """Return the ids of runs and labels that the table holds."""
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
        note(f"{path} names {plural(found['unknown_items'], 'item')} that the table lacks, such as {such}.")
    if found.get("relevant_items_outside_the_table"):
        note(f"The table lacks {plural(found['relevant_items_outside_the_table'], 'relevant item')}.")


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
    table([*head, *([">difference", ">p-value", ">gained", ">lost"] if two else [])], rows)
