"""Vector search in a table: recall@100, queries per second and bytes per vector, exact and through several indices.

    python benchmarks/store.py                     # 200,000 vectors of 512 numbers; tens of minutes on two cores
    python benchmarks/store.py --n 20000           # quick
    python benchmarks/store.py --only exact,rq2    # some of the rows

Vectors come from a generator with a seed: unit vectors in 400 clusters whose sizes follow Zipf's law and whose members
differ along 32 directions and a little in all. Queries are further vectors of the same kind. Every search includes
looktwice's own re-scoring.
`cpu_ms` counts processor time of all threads and holds on a machine that is busy; `ms` is what the clock says.
Prints a table and, as its last line, one JSON object {"rows": [...], "n", "dim", …}.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.store import Row, Table, ann
from looktwice.store.search import VectorSearch
from looktwice.types import Candidate, EncoderInfo

CLUSTERS = 400
WAYS = 32
COLUMNS = ("search", "recall@100", "queries_s", "ms", "cpu_ms", "index_bytes", "vector_bytes", "build_s")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    os.environ["LANCE_CPU_THREADS"] = str(args.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = list(measure(Path(folder) / "bench.lt", args))
    print("  ".join(f"{name:>12}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{row[name]:>12}" for name in COLUMNS))
    record = {"rows": rows, "n": args.n, "dim": args.dim, "queries": args.queries, "k": args.k, "seed": args.seed}
    device = platform.processor() or platform.machine()
    finish("store", args, {**record, "threads": args.threads, "device": device})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Vector search in a table, exact and through several indices.")
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="exact,bulk,rq1,rq2,rq5,pq5", help="rows to measure, by name")
    parser.add_argument("--folder", help="where to make the table; the system's temporary folder unless told")
    return parse(parser, argv, n=2000, dim=64, queries=4, k=20)


def make_vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Return [count, dim] float32 unit vectors around CLUSTERS centres; the r-th has 1/r of the first one's share."""
    dice = np.random.default_rng(seed)
    centres = dice.normal(size=(CLUSTERS, dim)) + dice.normal(size=dim) * 0.5  # a common part, as encoders have
    ways = dice.normal(size=(WAYS, dim)) / WAYS**0.5
    shares = 1 / np.arange(1, CLUSTERS + 1)
    members = dice.choice(CLUSTERS, size=count, p=shares / shares.sum())
    vectors = np.empty((count, dim), np.float32)
    for start in range(0, count, 8192):
        part = slice(start, start + 8192)
        size = len(members[part])
        vectors[part] = (
            centres[members[part]] + dice.normal(size=(size, WAYS)) @ ways + dice.normal(size=(size, dim)) * 0.4
        )
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def measure(path: Path, args: argparse.Namespace) -> Any:
    vectors = make_vectors(args.n + args.queries, args.dim, args.seed)
    table = Table.create(path, EncoderInfo("benchmark", "1", "none", args.dim))
    with table.writer():
        for start in range(0, args.n, 8192):
            table.add([_row(number, vectors[number]) for number in range(start, min(start + 8192, args.n))])
        table.compact()
    queries = vectors[args.n :]
    exact = replace(table._space(), index=None)
    truth = exact.stream(queries.astype(np.float64), args.k)
    yield from _exact(exact, queries, truth, args)
    items = f"{path}/items.lance"
    yield from _through("rq", table, queries, truth, args, lambda: ann.build(exact, args.n, items).partitions)
    yield from _through("pq", table, queries, truth, args, lambda: _build_pq(table, args))


def _exact(exact: VectorSearch, queries: np.ndarray, truth: list[list[Candidate]], args: argparse.Namespace) -> Any:
    wanted = args.only.split(",")
    if "exact" in wanted:
        yield _timed("exact", lambda: [exact.search(one[None], args.k)[0] for one in queries], truth, args)
    if "bulk" in wanted:
        yield _timed("bulk", lambda: exact.stream(queries.astype(np.float64), args.k), truth, args)


def _through(
    kind: str,
    table: Table,
    queries: np.ndarray,
    truth: list[list[Candidate]],
    args: argparse.Namespace,
    build: Callable[[], int],
) -> Any:
    refines = [int(name.removeprefix(kind)) for name in args.only.split(",") if name.startswith(kind)]
    if not refines:
        return
    started = time.process_time()
    partitions = build()
    table.compact(purge=False)
    built = round(time.process_time() - started, 1)
    size = sum(index.size_bytes for index in table._items.list_indices())
    for refine in refines:
        space = replace(table._space(), index={"nprobes": min(16, partitions), "refine": refine})
        row = _timed(f"{kind}{refine}", partial(space.search, queries, args.k), truth, args)
        yield {**row, "index_bytes": round(size / args.n, 1), "build_s": built}


def _build_pq(table: Table, args: argparse.Namespace) -> int:
    from lancedb.index import IvfPq

    partitions = max(1, int(args.n**0.5) // 2)
    config = IvfPq(distance_type="cosine", num_partitions=partitions, num_sub_vectors=args.dim // 8)
    table._items.create_index("vector", config=config, replace=True)
    return partitions


def _timed(
    name: str, search: Callable[[], Any], truth: list[list[Candidate]], args: argparse.Namespace
) -> dict[str, Any]:
    search()  # warms caches
    wall, cpu = time.perf_counter(), time.process_time()
    found = search()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "search": name,
        "recall@100": round(ann.recall(truth, found), 4),
        "queries_s": round(args.queries / wall, 1),
        "ms": round(1000 * wall / args.queries, 2),
        "cpu_ms": round(1000 * cpu / args.queries, 2),
        "index_bytes": 0,
        "vector_bytes": args.dim * 2,
        "build_s": 0,
    }


def _row(number: int, vector: np.ndarray) -> Row:
    return Row(f"{number:09}", "", f"{number:064x}", 1, 1, None, {}, vector)


if __name__ == "__main__":
    main()
