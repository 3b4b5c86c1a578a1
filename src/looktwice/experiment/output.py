"""Write the results of a benchmark run to its folder: TREC files, the result, plots, the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from looktwice.evaluate import write_run
from looktwice.evaluate.datasets import Dataset
from looktwice.experiment.answers import write_json
from looktwice.experiment.plot import plot
from looktwice.experiment.result import Outcome, front
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System, reranked, slug
from looktwice.files import write_whole
from looktwice.report import write_report
from looktwice.report.viewer import Viewer
from looktwice.search.answer import Answer
from looktwice.search.run_record import RunStats
from looktwice.sources.loader import Resolver

SHOWN = 20  # best and worst queries that the report shows with images
HURT = 50  # hurt queries that the report lists by name
Plot: TypeAlias = tuple[str, str, str]


def write(
    folder: Path,
    outcome: Outcome,
    dataset: Dataset,
    answers: Sequence[StoredAnswer],
    systems: Sequence[System],
    find: Resolver,
) -> None:
    """Write runs, result, plots and report. The report shows the last of `systems`."""
    for system in systems:
        write_run(folder / f"{slug(system.name)}.trec", outcome.runs[system.name])
    write_json(folder / "result.json", outcome.record)
    drawn = _plots(outcome, dataset.measures[0])
    for name, (_, svg, _) in drawn.items():
        write_whole(folder / f"{name}.svg", svg.encode())
    viewer = Viewer(find, dataset.qrels, dataset.measures)
    views = [viewer.view(answer) for answer in _rebuilt(dataset, answers, systems[-1], _telling(outcome))]
    kept = ("manifest", "problems", "dataset")
    write_report(
        folder / "report.html",
        title=dataset.name,
        manifest={key: value for key, value in outcome.record.items() if key in kept},
        queries=views,
        summary=[_flat(row) for row in [*outcome.rows, *outcome.record["sweep"]]],
        tables=_tables(outcome),
        plots=list(drawn.values()),
        tally=_tally(outcome.record),
    )


def _tally(record: Mapping[str, Any]) -> tuple[int, int, int] | None:
    second = record.get("second_look")
    return None if second is None else (second["helped"], second["hurt"], second["same"])


def _tables(outcome: Outcome) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the tables of losses, groups, and queries that the second look hurt."""
    record, tables = outcome.record, []
    if "loss" in record:
        measure = record["loss"]["measure"]
        rows = [{"": key.replace("_", " "), measure: x} for key, x in record["loss"].items() if key != "measure"]
        tables.append((f"Where {measure} was lost", rows))
    if record["groups"]:
        first = record["dataset"]["measures"][0]
        rows = [
            {
                "group": name,
                "queries": group["queries"],
                **{s: group[s][first]["mean"] for s in group if s != "queries"},
            }
            for name, group in record["groups"].items()
        ]
        tables.append((f"{first} by group", rows))
    if hurt := record.get("second_look", {}).get("hurt_queries"):
        rows = [
            {"query": q, "before": outcome.before[q], "after": outcome.after[q], "change": change}
            for q, change in hurt[:HURT]
        ]
        tables.append((f"Queries that the second look hurt: {len(hurt):,}, worst first", rows))
    return tables


def _plots(outcome: Outcome, measure: str) -> dict[str, Plot]:
    """Return title, SVG and caption by file name."""
    record = outcome.record
    rows = [*record["systems"], *record["sweep"]]
    sizes = " and ".join(f"{size:,.0f}" for size in dict.fromkeys(row["bytes_per_item"] for row in record["systems"]))
    best = ", ".join(record["pareto"]["seconds_per_query"])
    caption = f"No other setting is cheaper and better than: {best} (dashed). On disk: {sizes} bytes per item."
    drawn = {"pareto": (f"{measure} against cost", _pareto(rows, measure), caption)}
    if found := record.get("reliability", {}).get("points"):
        about = record["reliability"]
        caption = (
            f"Share of relevant pairs by p: {about['pairs']:,} pairs, {about['relevant']:,} of them relevant. On the "
            f"dashed line p equals that share; expected calibration error {about['ece']:.3f}. Shortlists hold more "
            "look-alikes than a random sample, so the plot is valid for one table and depth."
        )
        svg = plot(
            {"measured": [(p, share) for p, share, _ in found]},
            title="How far p can be trusted", x="p", y="share relevant", guide=[(0, 0), (1, 1)],
        )  # fmt: skip
        drawn["reliability"] = ("How far p can be trusted", svg, caption)
    return drawn


def _pareto(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    points = {row["system"]: [(row["seconds_per_query"], row["measures"][measure]["mean"])] for row in rows}
    best = [points[row["system"]][0] for row in front(rows, "seconds_per_query", measure)]
    title = f"{measure} against cost"
    return plot(points, title=title, x="seconds per query", y=measure, joined=False, guide=best)


def _telling(outcome: Outcome) -> list[str]:
    """Return the queries that gained and lost most."""
    gains = sorted(outcome.after, key=lambda query: (outcome.after[query] - outcome.before[query], query))
    return list(dict.fromkeys([*reversed(gains[-SHOWN:]), *gains[:SHOWN]]))


def _rebuilt(
    dataset: Dataset, answers: Iterable[StoredAnswer], system: System, shown: Sequence[str]
) -> Iterable[Answer]:
    queries, stored = {query.id: query for query in dataset.queries}, {answer.query: answer for answer in answers}
    for name in shown:
        if name not in stored:
            continue
        answer = stored[name]
        shortlist = sorted(answer.candidates, key=lambda candidate: (-candidate.coarse, candidate.id))
        yield Answer(queries[name].load(), shortlist, reranked(answer, system), 10, {}, RunStats())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    measures = {name: value["mean"] for name, value in row["measures"].items()}
    rest = ("pairs_per_query", "seconds_per_query", "pairs_per_second", "bytes_per_item")
    return {"system": row["system"], **measures, **{name: "" if row[name] is None else row[name] for name in rest}}
