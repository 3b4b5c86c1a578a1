"""What the recipes share: options, one resumable run per row and data set, published figures beside ours.

`figures.json` holds what the papers print, in percent; `null` is a figure that is not known, and rows under
`second_hand` were taken from other people's summaries and not from the paper.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from looktwice.cli.console import note, number, progress, say, size, table
from looktwice.encode import load_encoder
from looktwice.errors import LooktwiceError
from looktwice.evaluate.datasets import Dataset, open_dataset
from looktwice.experiment import Plan, run_benchmark
from looktwice.experiment.answers import write_json
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.store import Table
from looktwice.token_index import add_tokens

FIGURES: Mapping[str, Any] = json.loads(Path(__file__).with_name("figures.json").read_text("utf-8"))
_SHORTLISTS: dict[Path, dict[str, Any]] = {}  # of this process: a table of millions is not gone through for each row


@dataclass(frozen=True)
class Column:
    """A column of a table: one measure of a data set that lies in `folder` below --root, perhaps of one group of it."""

    name: str
    dataset: str
    folder: str = "."
    measure: str = "success@1"
    group: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table that we can compute: `look` has the settings of the second look, None is the shortlist alone.

    With `maxsim`, a middle look re-orders so many candidates by the tokens that `codec` stores.
    """

    name: str
    encoder: str
    mllm: str = "tiny-vl"
    look: Mapping[str, Any] | None = None
    ties: str = "default"
    fusion: str = "p-only"
    codec: str = "images"
    maxsim: int = 0
    listwise: Mapping[str, Any] | None = None

    def settings(self, dataset: str) -> Mapping[str, Any] | None:
        """Those of the second look on one data set: where captions are chosen among, `listwise` if there is one."""
        chooses = dataset.endswith(":i2t") or dataset == "sugarcrepe"
        return self.listwise if chooses and self.listwise is not None else self.look


def parser(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """The options that every recipe has, with its own defaults."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--root", type=Path, required=True, help="the folder that holds the data sets")
    made.add_argument("--out", type=Path, default=Path("recipes-out"), help="where runs and tables go")
    made.add_argument("--encoder", help="what makes the shortlist (default: %(default)s)")
    made.add_argument("--mllm", help="what looks twice (default: %(default)s)")
    made.add_argument("--shortlist", type=int, help="candidates that get a second look (default: %(default)s)")
    made.add_argument("--limit", type=int, help="ask only so many queries of each data set, drawn by their ids")
    made.add_argument("--partial", action="store_true", help="allow counts that differ from the published ones")
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto")
    made.set_defaults(**defaults)
    return made


def run(name: str, rows: Sequence[Row], columns: Sequence[Column], options: argparse.Namespace) -> dict[str, Any]:
    """Run every row on every data set, then print and write table `name` of figures.json with ours beside it."""
    ours: dict[str, dict[str, Any]] = {row.name: {} for row in rows}
    notes: list[str] = []
    for dataset in dict.fromkeys((column.dataset, column.folder) for column in columns):
        where = options.out / name / _slug(dataset[0])
        opened = open_dataset(dataset[0], options.root / dataset[1], work=where, partial=options.partial)
        asked = limited(opened, options.limit)
        notes += [f"{asked.name}: {text}" for text in asked.notes]
        for row in rows:
            record = measured(row, asked, where, options, row.settings(dataset[0]))
            mine = [column for column in columns if (column.dataset, column.folder) == dataset]
            ours[row.name] |= {column.name: cell for column in mine if (cell := _cell(record, column)) is not None}
            notes += [f"{c.name}: none of the queries that were asked" for c in mine if c.name not in ours[row.name]]
    return show(name, ours, [column.name for column in columns], options.out / name, list(dict.fromkeys(notes)))


def measured(
    row: Row, dataset: Dataset, where: Path, options: argparse.Namespace, look: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The result of one row on one data set. Rows with the same encoder share one table and one shortlist."""
    placed = {"device": options.device, "dtype": options.dtype}
    base = where / _slug(row.encoder)
    encoder = load_encoder(row.encoder, **placed)
    plan = Plan(encoder, None, row.fusion, row.ties, options.shortlist, row.codec, **placed)
    if base not in _SHORTLISTS:
        _SHORTLISTS[base] = _benchmark(dataset, base / "shortlist", replace(plan, codec="images"))
    if look is None:
        return _SHORTLISTS[base]
    plan = replace(plan, maxsim=row.maxsim, look=MllmReranker(row.mllm, **{"prompt": dataset.prompt, **look}, **placed))
    table_path, folder = base / "shortlist" / "items.lt", base / _slug(row.name)
    codes = base / _slug(f"tokens {row.codec} {look.get('resolution') or 'full'}")
    stored = None if row.codec == "images" else _tokens(table_path, plan, codes)
    return {**_benchmark(dataset, folder, plan, table_path), "bytes_per_image": stored}


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """The data set with so many of its queries, the same ones each time; it says so in its notes."""
    if limit is None or limit >= len(dataset.queries):
        return dataset
    drawn = sorted(dataset.queries, key=lambda query: hashlib.sha256(query.id.encode("utf-8", "replace")).digest())
    kept = {query.id for query in drawn[:limit]}
    groups = {name: {q: labels[q] for q in labels.keys() & kept} for name, labels in dataset.groups.items()}
    return replace(
        dataset,
        queries=[query for query in dataset.queries if query.id in kept],
        qrels={query: dataset.qrels[query] for query in dataset.qrels if query in kept},
        groups=groups,
        notes=(*dataset.notes, f"only {limit:,} of {len(dataset.queries):,} queries: not comparable"),
    )


def show(
    name: str, ours: Mapping[str, Mapping[str, Any]], columns: Sequence[str], out: Path, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Print table `name` of figures.json with ours beside it, and write both to `out`/table.json."""
    figures = FIGURES[name]
    systems = list(dict.fromkeys([*figures["rows"], *ours]))
    cells = [[_both(figures, ours, system, column) for column in columns] for system in systems]
    if len(columns) > 3:  # wider than long: turned round
        head, lines = systems, [[column, *row] for column, row in zip(columns, zip(*cells, strict=True), strict=True)]
    else:
        costs = [_cost(ours.get(system, {})) for system in systems]
        head = [*columns, "s/query", "bytes/picture"]
        lines = [[system, *row, *cost] for system, row, cost in zip(systems, cells, costs, strict=True)]
    title = f"{figures['title']} (published / ours, percent; † second-hand, ? not known)"
    table(["", *(f">{text}" for text in head)], lines, title=title)
    for text in (figures["source"], *figures["remarks"], *notes):
        note(text)
    record = {"name": name, "published": figures, "ours": ours, "notes": list(notes)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "table.json", record)
    say(str(out / "table.json"))
    return record


def main(recipe: Any) -> None:
    """Run a recipe as a command: what is refused is one sentence."""
    try:
        recipe()
    except LooktwiceError as error:
        raise SystemExit(f"Error: {error}") from None


def _benchmark(dataset: Dataset, folder: Path, plan: Plan, path: Path | None = None) -> dict[str, Any]:
    with progress(f"{dataset.name}: items", "items") as items, progress(f"{folder.name}: queries", "queries") as asked:
        return run_benchmark(dataset, folder, plan, table=path, indexing=items, searching=asked).outcome.record


def _tokens(path: Path, plan: Plan, folder: Path) -> float | None:
    """Store visual tokens for every picture; bytes of each, remembered for when nothing is left to do."""
    assert plan.look is not None
    remembered = folder / "bytes-per-picture.json"
    with progress("visual tokens", "images") as bar:
        report = add_tokens(
            Table.open(path), plan.look.scorer("object"), plan.codec, progress=lambda now: bar.at(now.done)
        )
    if report.encoded:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(remembered, report.bytes_per_image)
    return json.loads(remembered.read_text()) if remembered.exists() else None


def _cell(record: Mapping[str, Any], column: Column) -> dict[str, Any] | None:
    last = record["systems"][-1]
    part = record["groups"].get(column.group) if column.group else last
    if part is None:
        return None
    values = part[last["system"]] if column.group else part["measures"]
    cost = {"seconds_per_query": last["seconds_per_query"], "bytes_per_image": record.get("bytes_per_image")}
    return {**values[column.measure], "queries": part["queries"], **cost}


def _both(figures: Any, ours: Mapping[str, Any], system: str, column: str) -> str:
    value, cell = figures["rows"].get(system, {}).get(column), ours.get(system, {}).get(column)
    published = "?" if value is None else f"{value:.1f}{'†' if system in figures['second_hand'] else ''}"
    if cell is None:
        return published
    bounds = f" [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]" if "low" in cell else ""
    return f"{published} / {100 * cell['mean']:.1f}{bounds}"


def _cost(cells: Mapping[str, Any]) -> tuple[str, str]:
    cell: Mapping[str, Any] = next(iter(cells.values()), {})
    stored = cell.get("bytes_per_image")
    return number(cell.get("seconds_per_query"), 2), "–" if stored is None else size(stored)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")
