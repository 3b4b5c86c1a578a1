"""What further examples are worth: composed scenes, searched with one to three pictures of the same drawing.

    python benchmarks/examples.py

Like: each query has up to three portraits of one drawing, each on another ground. The first look searches by the mean
of their vectors; the second look joins their scores by the maximum or the mean.

Two things: each query has one portrait of each of two drawings, and scenes with either of them are relevant.

Unlike: the best wrong hit of the first look is named as a negative example, with several weights. Shown: the second
look is asked about the negative example too, and p becomes p · (1 − p of the negative one). Hits that were named as
examples are taken out of every ranking, also out of those that did not use them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from _smoke import finish, parse

from looktwice import Retriever, Table, index, load_encoder, scan
from looktwice.evaluate import Qrels, scenes
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.scenes.compose import portrait
from looktwice.evaluate.scenes.cutouts import Cutouts
from looktwice.models.device import set_threads
from looktwice.search.examples import Examples
from looktwice.types import Candidate, Item

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)
MEASURE = "mAP@50"
Order = list[tuple[str, float]]
Runs = dict[str, dict[str, Order]]
SCORED: dict[tuple[str, str], float] = {}


def main(argv: Sequence[str] | None = None) -> None:
    """Print two tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=94)
    parser.add_argument("--shortlist", type=int, default=50)
    parser.add_argument("--threads", type=int)
    asked = parse(parser, argv, scenes=188, queries=2, shortlist=4, threads=1)
    set_threads(asked.threads)
    cutouts = Cutouts.bundled()
    wanted = [cutout for cutout in cutouts.all if cutout.label][: asked.queries]
    others = [cutout for cutout in cutouts.all if not cutout.label]
    with tempfile.TemporaryDirectory() as folder:
        size = scenes.ScenesSize("examples", asked.scenes, asked.scenes // 188, asked.queries, 0)
        data = scenes.build(Path(folder) / "data", size)
        encoder = load_encoder("tiny-clip")
        table = Table.create(Path(folder) / "t.lt", encoder.info)
        index(table, scan([Path(folder) / "data" / "scenes"]), encoder)
        retriever = Retriever(table, encoder, "tiny-vl", shortlist=asked.shortlist)
        runs: Runs = defaultdict(dict)
        first_portraits: list[Item] = []
        for number, cutout in enumerate(wanted):
            name = f"p{number:04d}"
            shown = [portrait(cutout, 192, Random(f"{name} {n}"), cutouts, others).image for n in range(3)]
            labels = data.qrels.get(name, {})
            like(runs, retriever, name, [Item(f"{name}-{n}", image) for n, image in enumerate(shown)], "like ")
            unlike(runs, retriever, name, Item(f"{name}-0", shown[0]), {d for d, grade in labels.items() if grade > 0})
            first_portraits.append(Item(f"{name}-0", shown[0]))
            if number % 2:
                two(runs, retriever, data.qrels, number, first_portraits[-2:])
    rows = {name: round(measured(run, data.qrels), 4) for name, run in runs.items()}
    print(f"{len(wanted)} queries, {asked.scenes} scenes, shortlist {asked.shortlist}\n{'ranking':<44}{MEASURE:>8}")
    for name, value in rows.items():
        print(f"{name:<44}{value:>8.3f}")
    finish(
        "examples",
        asked,
        {"queries": len(wanted), "rows": [{"ranking": name, MEASURE: value} for name, value in rows.items()]},
    )


def like(runs: Runs, retriever: Retriever, name: str, shown: Sequence[Item], title: str) -> None:
    """Rank with the first positive example, the first two, …: the first look, and both rules of the second."""
    for n in range(1, len(shown) + 1):
        query = Examples.of(shown[:n], (), name)
        shortlist = first(retriever, query)
        p = np.stack([look(retriever, item, shortlist) for item in shown[:n]])
        runs[f"{title}{n}: first look"][name] = [(c.id, c.coarse) for c in shortlist]
        runs[f"{title}{n}: second look, max"][name] = fused(shortlist, p.max(axis=0))
        if n > 1:
            runs[f"{title}{n}: second look, mean"][name] = fused(shortlist, p.mean(axis=0))


def two(runs: Runs, retriever: Retriever, qrels: Qrels, number: int, pair: Sequence[Item]) -> None:
    """Rank with one portrait of each of two drawings; scenes with either are relevant."""
    name = f"p{number - 1:04d} or p{number:04d}"
    either = [qrels.get(f"p{n:04d}", {}) for n in (number - 1, number)]
    qrels[name] = {item: max(labels.get(item, -1) for labels in either) for item in set().union(*either)}
    like(runs, retriever, name, pair, "two things, ")


def measured(run: dict[str, Order], qrels: Qrels) -> float:
    """Return the measure over the queries of a run."""
    return measure_group(run, {name: qrels.get(name, {}) for name in run}, [MEASURE])[MEASURE]


def unlike(runs: Runs, retriever: Retriever, name: str, query: Item, relevant: set[str]) -> None:
    """Rank with the best wrong hit as a negative example, at several weights."""
    wrong = next(c.id for c in first(retriever, Examples.of([query], (), name)) if c.id not in relevant)
    negative = retriever.reader.together([{"item": wrong}], (), name).like[0]  # type: ignore[attr-defined]
    for weight in WEIGHTS:
        asked = replace(Examples.of([query], [negative], name), weight=weight)
        shortlist = first(retriever, asked)
        p = look(retriever, query, shortlist)
        runs[f"unlike {weight:g}: first look"][name] = [(c.id, c.coarse) for c in shortlist]
        runs[f"unlike {weight:g}: second look"][name] = fused(shortlist, p)
        q = look(retriever, negative, shortlist)
        runs[f"unlike {weight:g}: second look, shown"][name] = fused(shortlist, p * (1 - q))


def first(retriever: Retriever, query: Item) -> list[Candidate]:
    """Return the shortlist of a query."""
    return retriever.search(query, k=1, rerank=False).shortlist


def look(retriever: Retriever, query: Item, shortlist: list[Candidate]) -> np.ndarray:
    """Return p of every candidate, in the order of the shortlist; no pair is scored twice."""
    assert retriever.stage is not None
    if new := [candidate for candidate in shortlist if (query.id, candidate.id) not in SCORED]:
        for hit in retriever.stage.rerank(query, new, len(new)).hits:
            SCORED[query.id, hit.id] = float(hit.p or 0)
    return np.array([SCORED[query.id, candidate.id] for candidate in shortlist])


def fused(shortlist: list[Candidate], p: np.ndarray) -> Order:
    """Return the mean of both scores, best first."""
    scored = [(c.id, (c.coarse + float(value)) / 2) for c, value in zip(shortlist, p, strict=True)]
    return sorted(scored, key=lambda row: (-row[1], row[0]))


if __name__ == "__main__":
    main()
