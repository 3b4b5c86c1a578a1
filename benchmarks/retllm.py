"""The parts of RetLLM one by one, on the bundled models: the ablation table of docs/explanation/retllm.md, and cost.

    python benchmarks/retllm.py                       # ten minutes on one core; run again, it goes on where it stopped
    python benchmarks/retllm.py --queries 20 --only p-label,p-true
    python benchmarks/retllm.py --cost                # what retrace costs, in processor time

Scenes are composed from the bundled drawings by a seeded script; nothing is downloaded. image→image: one drawing,
large, against scenes, relevant where at least 35 % of its part inside the frame is uncovered. text→image: a drawing's
label against scenes, relevant likewise. image→text: a scene against all labels. The bundled models hardly know the
words, so that with words they do little better than chance. The bundled encoder makes the shortlists; fusion is
p-only, so that every difference is the second look's. Where no answer can be read, coarse order stands, as
everywhere. The tie rate counts queries whose top score is shared, by the configuration's own rule for ties.
Differences are to p-label, per query, with a 95 % bootstrap interval. Prints tables and, as its last line, one JSON
object.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from _smoke import finish, parse

from looktwice.encode import load_encoder
from looktwice.evaluate.bootstrap import difference, interval
from looktwice.evaluate.scenes.compose import clutter, portrait
from looktwice.evaluate.scenes.cutouts import Cutouts
from looktwice.models.device import set_threads
from looktwice.score import load_scorer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.rerank_run import rerank_run
from looktwice.search.token_choice import CandidateLoader
from looktwice.types import Item

SIDE, VISIBLE, SEED = 192, 0.35, 7
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "p-label": {},
    "p-label + retrace": {"retrace": "causal"},
    "p-label + entropy": {"ties": "repaired"},
    "p-label + both": {"retrace": "causal", "ties": "repaired"},
    "p-true": {"score_mode": "p-true"},
    "p-true, as released": {"score_mode": "p-true", "ties": "released-code", "retrace": "released-code"},
    "written": {"score_mode": "written"},
    "written + entropy (paper)": {"score_mode": "written", "ties": "paper"},
    "written + both (paper)": {"score_mode": "written", "ties": "paper", "retrace": "paper"},
    "written-expected": {"score_mode": "written-expected"},
    "choice": {"score_mode": "choice"},
}
COSTS = ("off", "causal", "causal-dynamic", "paper", "released-code")


@dataclass
class Task:
    """Queries, candidates by id, and which candidates are relevant to which query."""

    name: str
    queries: list[Item]
    candidates: dict[str, Item]
    relevant: dict[str, set[str]]
    run: dict[str, list[tuple[str, float]]]


def tasks(queries: int, depth: int) -> Iterator[Task]:
    """Three directions over the same scenes."""
    cutouts, rng = Cutouts.bundled(), Random(SEED)
    asked = [cutout for cutout in cutouts.all if cutout.label]
    others = [cutout for cutout in cutouts.all if not cutout.label]
    labels = sorted({cutout.label or "" for cutout in asked})
    rng.shuffle(asked)
    scenes, shows, drawn = {}, {}, {}
    for i, target in enumerate((asked * (1 + 4 * queries // len(asked)))[: 4 * queries]):
        beside = [rng.choice(asked), *rng.sample(others, rng.randint(0, 3))]
        scene = clutter(target, beside, SIDE, rng, cutouts, others)
        name = f"scene-{i:04}"
        scenes[name] = Item(name, image=scene.image)
        drawn[name] = {placed.cutout.id for placed in scene.placed if placed.visible >= VISIBLE}
        shows[name] = {placed.cutout.label for placed in scene.placed if placed.visible >= VISIBLE} - {None, ""}
    encoder = load_encoder("tiny-clip")
    things = [c for c in asked if any(c.id in shown for shown in drawn.values())][:queries]
    views = [Item(f"view-{c.id}", image=portrait(c, SIDE, rng, cutouts, others).image) for c in things]
    same = {q.id: {n for n, shown in drawn.items() if c.id in shown} for q, c in zip(views, things, strict=True)}
    yield Task("image→image", views, scenes, same, coarse(encoder, views, scenes, depth))
    words = {f"label-{i:03}": Item(f"label-{i:03}", text=f"a {label}") for i, label in enumerate(labels)}
    named = dict(zip(labels, words, strict=True))
    seen = [label for label in labels if any(label in shown for shown in shows.values())]
    chosen = rng.sample(seen, min(queries, len(seen)))
    asks = [Item(f"ask-{i:03}", text=f"a {label}") for i, label in enumerate(chosen)]
    found = {q.id: {n for n, shown in shows.items() if label in shown} for q, label in zip(asks, chosen, strict=True)}
    yield Task("text→image", asks, scenes, found, coarse(encoder, asks, scenes, depth))
    pictures = rng.sample([item for name, item in scenes.items() if shows[name]], min(queries, len(scenes)))
    true = {q.id: {named[label] for label in shows[q.id] if label} for q in pictures}
    yield Task("image→text", pictures, words, true, coarse(encoder, pictures, words, depth))


def coarse(encoder: Any, queries: Sequence[Item], candidates: Mapping[str, Item], depth: int) -> dict[str, Any]:
    """The best `depth` by cosine."""
    names = list(candidates)
    cosines = encoder.encode(list(queries)) @ encoder.encode(list(candidates.values())).T
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
    return {q.id: [(names[j], float(row[j])) for j in top] for q, row, top in zip(queries, cosines, best, strict=True)}


def ask(task: Task, settings: Mapping[str, str], mllm: str, cache: Path | None, depth: int) -> tuple[list[Any], float]:
    """Answers to all queries, and the processor seconds they took."""
    options: dict[str, Any] = {key: value for key, value in settings.items() if key != "ties"}
    look = MllmReranker(mllm, cache=cache, device="cpu", dtype="float32", **options)
    rules: dict[str, Any] = {"fusion": "p-only", "ties": settings.get("ties", "coarse"), "shortlist": depth, "k": depth}
    begin = time.process_time()
    found: Any = lambda ids: [task.candidates[i] for i in ids]  # noqa: E731  # items where a table would give refs
    answers = list(rerank_run(task.run, task.queries, CandidateLoader(found), look, **rules))
    return answers, time.process_time() - begin


def first(ranking: Sequence[str], relevant: set[str]) -> float:
    return float(bool(ranking) and ranking[0] in relevant)


def row(
    name: str, task: Task, answers: Sequence[Any], seconds: float, base: Mapping[str, float] | None
) -> dict[str, Any]:
    """One line of the table."""
    hit = {a.query.id: first([h.id for h in a.hits], task.relevant[a.query.id]) for a in answers}
    pairs = sum(a.stats.requested for a in answers)
    looks = answers[-1].manifest["second_look"]
    cached = sum(int(look.get("cached", 0)) for look in looks)
    retrace = next((look["retrace"] for look in looks if isinstance(look.get("retrace"), dict)), None)
    gain = None if base is None else difference(hit, base)
    return {
        "task": task.name,
        "configuration": name,
        "success@1": interval(hit.values()).mean,
        "difference": None if gain is None else [gain.mean, gain.low, gain.high],
        "tie_rate": float(np.mean([tied(a) for a in answers])),
        "parse_errors": sum(a.stats.status["parse_error"] for a in answers) / max(1, pairs),
        "trigger_rate": retrace and retrace["trigger_rate"],
        "delta_to_ffn": retrace and retrace["delta_to_ffn"],
        "pairs_per_cpu_second": None if cached else round(pairs / seconds, 1),
        "hits": hit,
    }


def tied(answer: Any) -> bool:
    """Whether the top score is shared, by the rule that made the ranking: candidates that are tied have one score."""
    scores = [hit.score for hit in answer.ranking if hit.scored]
    return len(scores) > 1 and scores[0] == scores[1]


def cost(task: Task, mllm: str, repeats: int) -> list[dict[str, Any]]:
    """Processor seconds of scoring the same pairs with and without retrace, in turns; the best of `repeats`."""
    scorers = {name: load_scorer(mllm, prompt="object", device="cpu", dtype="float32", retrace=name)
               for name in COSTS}  # fmt: skip
    query, candidates = task.queries[0], list(task.candidates.values())[:48]
    for scorer in scorers.values():
        scorer.score(query, candidates)
    best = dict.fromkeys(COSTS, float("inf"))
    for _ in range(repeats):
        for name, scorer in scorers.items():
            begin = time.process_time()
            scorer.score(query, candidates)
            best[name] = min(best[name], time.process_time() - begin)
    return [{"retrace": name, "seconds": best[name], "ratio": best[name] / best["off"]} for name in COSTS]


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for one in rows:
        print("| " + " | ".join(cell(one[column]) for column in columns) + " |", flush=True)


def cell(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mllm", default="tiny-vl")
    parser.add_argument("--queries", type=int, default=40, help="queries per direction")
    parser.add_argument("--depth", type=int, default=20, help="candidates per query")
    parser.add_argument("--only", default="", help="configurations, separated by commas; p-label is always run")
    parser.add_argument("--cache", type=Path, default=Path("retllm-scores.sqlite"), help="scores are kept here")
    parser.add_argument("--cost", action="store_true", help="only what retrace costs")
    parser.add_argument("--repeats", type=int, default=12, help="with --cost: the best of so many")
    options = parse(parser, argv, queries=2, depth=3, cache=None, repeats=1)
    set_threads(1)
    if options.cost:
        rows = cost(next(tasks(min(20, options.queries), options.depth)), options.mllm, options.repeats)
        show(rows, list(rows[0]))
        finish("retllm-cost", options, {"mllm": options.mllm, "rows": rows})
        return
    names = [n for n in CONFIGURATIONS if not options.only or n == "p-label" or n in options.only.split(",")]
    table: list[dict[str, Any]] = []
    for task in tasks(options.queries, options.depth):
        first_look = {q.id: first([name for name, _ in task.run[q.id]], task.relevant[q.id]) for q in task.queries}
        base: Mapping[str, float] | None = None
        for name in names:
            print(f"{task.name}: {name}", file=sys.stderr, flush=True)
            answers, seconds = ask(task, CONFIGURATIONS[name], options.mllm, options.cache, options.depth)
            table.append(row(name, task, answers, seconds, base))
            if base is None:
                base = table[-1]["hits"]
                gain = difference(first_look, base)
                table.append({**dict.fromkeys(table[-1]), "task": task.name, "configuration": "coarse only",
                              "success@1": float(np.mean(list(first_look.values()))),
                              "difference": [gain.mean, gain.low, gain.high]})  # fmt: skip
    for one in table:
        one.pop("hits")
    show(table, list(table[0]))
    conditions = {"mllm": options.mllm, "queries": options.queries, "depth": options.depth, "seed": SEED}
    finish("retllm", options, {**conditions, "rows": table})


if __name__ == "__main__":
    main()
