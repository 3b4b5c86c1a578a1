"""How cost grows: with k (candidates looked at), with visual tokens per picture, with the size of the table.

    python benchmarks/growth.py                        # ten minutes on one core; prints three tables and one JSON line
    python benchmarks/growth.py --plots docs/explanation/plots     # also draws them as SVG

Processor time, least of `--repeats`. k: the bundled tiny-vl from PQ codes. Tokens: a Qwen2.5-VL of random weights
(0.08 B at 4 layers), 16 candidates as codes, square pictures of growing size. Table size: one search for 100 of n
vectors of 512 numbers, exact and through the index that looktwice builds. Beside the first two: what the formulas of
docs/explanation/performance.md say at this machine's own matrix-product rate, the physical floor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse
from pairs import PROMPT, Config, candidates, costs, engine, matmul_rate, ok, opened, paths_of, random_qwen, timed
from store import make_vectors

from looktwice.estimate.cost import language_tokens
from looktwice.experiment.plot import plot
from looktwice.models import checkpoints
from looktwice.models.device import place, set_threads
from looktwice.score.load import load_mllm
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.store import Row, Table, ann
from looktwice.store.search import VectorSearch
from looktwice.types import EncoderInfo, Item

CLOCK = time.process_time
Rows = list[dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    threads = set_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = load_mllm(checkpoints.resolve("tiny-vl"), place("cpu", "float32"))
        by_k = [second_look(tiny, k, 192, folder / "k", args.repeats) for k in args.k]
        qwen = load_mllm(checkpoints.resolve(str(random_qwen(folder / "qwen", args.layers))), place("cpu", "float32"))
        by_tokens = [second_look(qwen, args.pairs, side, folder / f"t{side}", args.repeats) for side in args.sides]
        by_size = table_sizes(args.n, folder, args.repeats)
    tables = {"k": by_k, "tokens": by_tokens, "table": by_size}
    for title, rows in tables.items():
        print(f"\n{title}\n" + "  ".join(f"{column:>14}" for column in rows[0]))
        for row in rows:
            print("  ".join(f"{value:>14.4g}" for value in row.values()))
    if args.plots:
        draw(Path(args.plots), tables)
    finish("growth", args, {**tables, "device": f"cpu, {threads} thread", "prompt": PROMPT})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 10, 25, 50, 100, 200, 400])
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 224, 336, 448, 560], help="pixels")
    parser.add_argument("--n", type=int, nargs="+", default=[1_000, 10_000, 50_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plots", help="folder for the three drawings")
    parser.add_argument("--layers", type=int, default=4, help="decoder layers of the random Qwen2.5-VL; 0: a toy")
    parser.add_argument("--pairs", type=int, default=16, help="candidates where tokens per picture grow")
    return parse(parser, argv, k=[1, 2], sides=[112], n=[300, 600], repeats=1, layers=0, pairs=2)


def second_look(model: Mllm, k: int, side: int, folder: Path, repeats: int) -> dict[str, Any]:
    """One query against k candidates from pq8 codes: milliseconds measured, and at the machine's matmul rate."""
    config = Config(str(k), "", k, "pq8", side, 1)
    fast, slow = engine(model), ReferenceScorer(model, built_in.get(PROMPT))
    read = candidates(config, fast, folder)
    asked, shown = (Item(p.name, image=opened(p)) for p in paths_of(config, folder)[:2])

    def score() -> None:
        for items in read():
            ok(fast.score(asked, items))

    score()
    taken = min(timed(score, CLOCK) for _ in range(repeats))
    flop = costs(config, fast, slow, asked, shown)["fast"] * k
    tokens = language_tokens(fast.visual_tokens([shown])[0].layout)
    return {
        "k": k, "tokens": tokens, "ms_query": 1000 * taken, "ms_pair": 1000 * taken / k,
        "floor_ms_query": 1000 * flop / matmul_rate(CLOCK),
    }  # fmt: skip


def table_sizes(sizes: list[int], folder: Path, repeats: int, dim: int = 512) -> Rows:
    vectors = make_vectors(max(sizes) + 20, dim, 0)
    return [one_size(n, vectors[:n], vectors[-20:], folder / f"{n}.lt", repeats) for n in sizes]


def one_size(n: int, vectors: np.ndarray, queries: np.ndarray, path: Path, repeats: int) -> dict[str, Any]:
    table = Table.create(path, EncoderInfo("benchmark", "1", "none", vectors.shape[1]))
    with table.writer():
        for start in range(0, n, 8192):
            part = range(start, min(start + 8192, n))
            table.add([Row(f"{i:09}", "", f"{i:064x}", 1, 1, None, {}, vectors[i]) for i in part])
        table.compact()
    exact = replace(table._space(), index=None)
    row = {
        "n": n,
        "exact_ms": search_ms(exact, queries, repeats),
    }  # before there is an index
    partitions = ann.build(exact, n, f"{path}/items.lance").partitions
    through = replace(exact, index={"nprobes": min(16, partitions), "refine": 4})
    return {**row, "index_ms": search_ms(through, queries, repeats)}


def search_ms(space: VectorSearch, queries: np.ndarray, repeats: int) -> float:
    """Processor milliseconds of one search for 100 of all."""
    space.search(queries[:1], 100)
    taken = min(timed(lambda: [space.search(q[None], 100) for q in queries], CLOCK) for _ in range(repeats))
    return 1000 * taken / len(queries)


def draw(folder: Path, tables: dict[str, Rows]) -> None:
    """Three SVG files: growth-k, growth-tokens, growth-table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, across, title, label in (
        ("k", "k", "One query against k candidates (tiny-vl, pq8)", "k"),
        ("tokens", "tokens", "Visual tokens per picture (Qwen2.5-VL, 0.08 B, k = 16)", "tokens per picture"),
    ):
        series = {
            told: [(row[across], row[key] / 1000) for row in tables[name]]
            for told, key in (("measured", "ms_query"), ("floor", "floor_ms_query"))
        }
        (folder / f"growth-{name}.svg").write_text(plot(series, title=title, x=label, y="seconds per query"))
    sizes = {kind: [(row["n"] / 1000, row[f"{kind}_ms"]) for row in tables["table"]] for kind in ("exact", "index")}
    text = plot(sizes, title="Shortlist of 100 from a table (512 numbers each)", x="thousand items", y="ms per query")
    (folder / "growth-table.svg").write_text(text)


if __name__ == "__main__":
    main()
