"""What `--budget auto:ε` saves and loses, against fixed shortlists, on the stored scores of a whole evaluation.

    looktwice eval run scenes
    python benchmarks/budget.py eval-scenes
    python benchmarks/budget.py                  # makes a run over the small scenes first; minutes

Works on what `looktwice eval run` keeps: coarse scores and p of 50 candidates for each of 2,000 queries (200 in a small
run). The calibration is fitted on one half of the drawings and used on the other, then the other way round; pictures
and words apart. The change is that of success@1 against the whole shortlist, per query, with a 95 % bootstrap
interval. Stopping early changes no score, so nothing is scored again.

The row "chosen" takes ε, too, from queries not reported. Half of the other half's drawings fit the calibration;
on the rest, the ε of fewest pairs is chosen whose loss stays under half a point at the end of its interval.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.errors import LooktwiceError, UsageError
from looktwice.evaluate.bootstrap import difference
from looktwice.evaluate.datasets import Dataset
from looktwice.evaluate.scenes import FULL, SMALL, ScenesSize, build
from looktwice.experiment import Plan, run_benchmark
from looktwice.experiment.answers import Answers
from looktwice.experiment.stored import StoredAnswer
from looktwice.rank import Fusion
from looktwice.rank.budget import BLOCK, blended, chance_of_a_miss
from looktwice.rank.calibration import Calibration, Sample, fit
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.ranking_config import RankingConfig

SMOKE = ScenesSize("smoke", 24, 2, 12, 12)
FIXED = (1, 2, 3, 5, 8, 16, 24, 32, 50)
EPSILONS = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
MOST_LOSS = 0.005  # of success@1, at the end of its interval
FEWEST = 100  # queries that can be cut into quarters
Labels = Mapping[str, Mapping[str, int]]
Stops = Mapping[str, Mapping[float, int]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="what `looktwice eval run scenes` wrote; made if left out")
    parser.add_argument("--fusion", default="auto")
    parser.add_argument("--block", type=int, default=BLOCK, help="pairs scored between two estimates (looktwice: 8)")
    args = parse(parser, argv)
    with folder_of(args) as folder:
        rows, labels = answered(folder)
    fusion = RankingConfig.of(args.fusion, maxsim=any(row.maxsim for row in rows)).fusion
    whole = [hit(row, len(row.p), fusion, labels) for row in rows]
    table = [measured(f"fixed {k}", [min(k, len(row.p)) for row in rows], rows, whole, fusion, labels) for k in FIXED]
    stops = early_stops(rows, fusion, labels, args.block)
    table += [
        measured(f"auto:{e:g}", [stops[row.query][e] for row in rows], rows, whole, fusion, labels) for e in EPSILONS
    ]
    if len(rows) >= FEWEST:
        epsilons, depth = chosen(rows, whole, fusion, labels, args.block)
        name = f"auto:{' and '.join(f'{e:g}' for e in epsilons)}, chosen"
        table.append(measured(name, [depth[row.query] for row in rows], rows, whole, fusion, labels))
    tell(table, rows, stops, labels)
    finish("budget", args, {"queries": len(rows), "fusion": str(fusion), "block": args.block, "rows": table})


def tell(table: Sequence[Mapping[str, Any]], rows: Sequence[StoredAnswer], stops: Stops, labels: Labels) -> None:
    """Print the table, and below it what the two kinds of query need."""
    print("| budget | pairs per query | success@1 | change in points [95 %] |\n|---|---|---|---|")
    for one in table:
        mean, low, high = (100 * x for x in one["loss"])
        print(f"| {one['budget']} | {one['pairs']:.1f} | {one['success@1']:.4f} | {mean:.2f} [{low:.2f}, {high:.2f}] |")
    print()
    for kind, name in (("p", "pictures"), ("w", "words")):
        same = [row for row in rows if row.query[0] == kind]
        if not same:
            continue
        spent = ", ".join(f"{np.mean([stops[row.query][e] for row in same]):.0f} at {e:g}" for e in (0.2, 0.01))
        lost = sum(not any(labels[row.query].get(id_, 0) > 0 for id_ in row.ids[: len(row.p)]) for row in same)
        print(f"{name}: {lost / len(same):.0%} of shortlists hold nothing relevant; pairs by ε: {spent}")


@contextmanager
def folder_of(args: argparse.Namespace) -> Iterator[Path]:
    """The folder of the run that was named, or of one over the small scenes that is made for the occasion."""
    if args.folder is not None:
        yield args.folder
        return
    with tempfile.TemporaryDirectory() as name:
        evaluate(Path(name), SMOKE if args.smoke else SMALL)
        yield Path(name)


def evaluate(folder: Path, size: ScenesSize) -> None:
    """Do what `looktwice eval run scenes` does, with the bundled models."""
    look = MllmReranker("tiny-vl", device="cpu", dtype="float32")
    plan = Plan("tiny-clip", look, shortlist=min(50, size.scenes), device="cpu", dtype="float32")
    run_benchmark(build(folder / "dataset", size), folder, plan, indexing=Silent(), searching=Silent())


class Silent:
    """A progress bar that shows nothing."""

    def at(self, done: int) -> None: ...

    def total(self, n: int) -> None: ...


def answered(folder: Path) -> tuple[list[StoredAnswer], Labels]:
    """The answers that a run keeps to queries that something is relevant to, and the labels."""
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    labels = scenes_of(folder, settings).qrels
    kept = Answers(folder, settings).rows.values()
    return [row for row in kept if any(v > 0 for v in labels.get(row.query, {}).values())], labels


def scenes_of(folder: Path, settings: Mapping[str, Any]) -> Dataset:
    """The scenes of a run, in the size that it was over. Raises UsageError where it was over something else."""
    sizes = {f"scenes ({size.name})": size for size in (FULL, SMALL, SMOKE)}
    if settings["dataset"] not in sizes:
        raise UsageError(f"{folder} holds a run over {settings['dataset']}; give one of `looktwice eval run scenes`.")
    return build(folder / "dataset", sizes[settings["dataset"]])


def measured(
    name: str,
    depths: Sequence[int],
    rows: Sequence[StoredAnswer],
    whole: Sequence[float],
    fusion: Fusion,
    labels: Labels,
) -> dict[str, Any]:
    got = [hit(row, depth, fusion, labels) for row, depth in zip(rows, depths, strict=True)]
    after, before = ({row.query: x for row, x in zip(rows, values, strict=True)} for values in (got, whole))
    gain = difference(after, before)
    return {
        "budget": name, "pairs": float(np.mean(depths)), "success@1": float(np.mean(got)),
        "loss": [gain.mean, gain.low, gain.high],
    }  # fmt: skip


def early_stops(
    rows: Sequence[StoredAnswer], fusion: Fusion, labels: Labels, block: int
) -> dict[str, dict[float, int]]:
    """Query → ε → how many candidates are scored, by the calibration of the other half of its kind."""
    stops: dict[str, dict[float, int]] = {}
    for half in (0, 1):
        fitted = calibrations([row for row in rows if fold(row, labels) != half], labels)
        same = [row for row in rows if fold(row, labels) == half]
        stops |= {row.query: depths(row, fusion, fitted[row.query[0]], block) for row in same}
    return stops


def chosen(
    rows: Sequence[StoredAnswer], whole: Sequence[float], fusion: Fusion, labels: Labels, block: int
) -> tuple[list[float], dict[str, int]]:
    """The ε for each half, chosen on the other half, and query → how many candidates are scored."""
    epsilons: list[float] = []
    found: dict[str, int] = {}
    got = dict(zip((row.query for row in rows), whole, strict=True))
    for half in (0, 1):
        others = [row for row in rows if fold(row, labels) != half]
        fitted = calibrations([row for row in others if fold(row, labels, 1)], labels)
        free = [row for row in others if not fold(row, labels, 1)]
        reported = [row for row in rows if fold(row, labels) == half]
        stops = {row.query: depths(row, fusion, fitted[row.query[0]], block) for row in (*free, *reported)}
        before = [got[row.query] for row in free]
        tried = [
            measured(f"{e:g}", [stops[row.query][e] for row in free], free, before, fusion, labels) for e in EPSILONS
        ]
        good = [one for one in tried if one["loss"][1] >= -MOST_LOSS]
        epsilons.append(float(min(good or tried[-1:], key=lambda one: one["pairs"])["budget"]))
        found |= {row.query: stops[row.query][epsilons[-1]] for row in reported}
    return epsilons, found


def calibrations(rows: Sequence[StoredAnswer], labels: Labels) -> dict[str, Calibration]:
    """A calibration for each kind of query."""
    return {
        kind: fit([s for row in rows if row.query[0] == kind for s in samples(row, labels)], {})
        for kind in {row.query[0] for row in rows}
    }


def fold(row: StoredAnswer, labels: Labels, byte: int = 0) -> int:
    """Queries for the same drawing have the same labels, and so the same half; another byte halves the halves."""
    return sha256(repr(sorted(labels[row.query].items())).encode()).digest()[byte] % 2


def samples(row: StoredAnswer, labels: Labels) -> list[Sample]:
    grades, best = labels[row.query], max(row.coarse)
    return [
        Sample(row.query, p, best - one.coarse, grades.get(one.id, 0) > 0)
        for one, p in zip(row.candidates, row.p, strict=False)
        if p is not None and grades.get(one.id, 0) >= 0
    ]


def depths(row: StoredAnswer, fusion: Fusion, odds: Calibration, block: int) -> dict[float, int]:
    """ε → candidates scored before the rest is unlikely to change the first place."""
    shortlist, best = row.candidates[: len(row.p)], max(row.coarse)
    found = dict.fromkeys(EPSILONS, len(shortlist))
    open_ = set(EPSILONS)
    for done in range(block, len(shortlist), block):
        seen = [(blended(c, fusion), p) for c, p in zip(shortlist[:done], row.p, strict=False) if p is not None]
        chance = chance_of_a_miss(seen, shortlist[done:], best, 1, fusion, odds)
        for epsilon in [e for e in open_ if chance < e]:
            found[epsilon] = done
            open_.remove(epsilon)
    return found


def hit(row: StoredAnswer, depth: int, fusion: Fusion, labels: Labels) -> float:
    """success@1 where only the first `depth` candidates were scored; junk leaves the list first."""
    grades = labels[row.query]
    seen = [
        (one, p)
        for one, p in zip(row.candidates[:depth], row.p, strict=False)
        if p is not None and grades.get(one.id, 0) >= 0
    ]
    if not seen:
        return 0.0
    scores = [fusion.scores([one.coarse], [p], None if one.maxsim is None else [one.maxsim])[0] for one, p in seen]
    best = max(range(len(seen)), key=lambda i: (scores[i], seen[i][0].coarse))
    return float(grades.get(seen[best][0].id, 0) > 0)


if __name__ == "__main__":
    try:
        main()
    except LooktwiceError as error:
        raise SystemExit(f"Error: {error}") from None
