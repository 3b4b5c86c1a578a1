"""The first look alone: a table's exact search against a FAISS flat index of the same vectors, in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from looktwice.store import Row, Table
from looktwice.types import EncoderInfo

BATCH = 64
APPENDS, EACH = 200, 10


def measure(folder: Path, sizes: list[int], dim: int, k: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield one row per search: `cpu_ms` is processor time of all threads per query, the median of `repeats` calls."""
    for size in sizes:
        for measured in _of_size(folder / f"{size}.lt", size, dim, k, repeats):
            yield {"items": size, **measured}


def _of_size(path: Path, size: int, dim: int, k: int, repeats: int) -> Iterator[dict[str, Any]]:
    vectors = unit(np.random.default_rng(size).normal(size=(size + BATCH, dim)))
    stored, queries = vectors[:size], vectors[size:]
    table = filled(path, stored)
    for what in ("first search", "second search"):
        begun = time.process_time()
        table.search(queries[0], k)
        yield {"search": what, "single_cpu_ms": 1000 * (time.process_time() - begun)}
    flat = flat_index(unit(stored.astype(np.float16)))
    truth = flat(queries, k)
    searches: dict[str, Callable[[np.ndarray], list[list[int]]]] = {
        "faiss flat": lambda some: flat(some, k),
        "table": lambda some: ids(table.search_many(some, k)),
    }
    for name, search in searches.items():
        found = recall(truth, search(queries))
        yield {"search": name, **times(search, queries, repeats), "recall": found}
    for share, where in ((1, "year = 7"), (10, "year < 10")):
        filtered = partial(table.search_many, k=k, where=where)
        yield {"search": f"table, {share} % pass a filter", **times(filtered, queries, repeats)}
    names = [f"{number:07}.jpg" for number in range(k)]
    looked = cpu_ms(lambda: table.lookup(names, ["id", "uri", "sha256", "text"]), repeats)
    yield {"search": f"look-up of {k} rows", "single_cpu_ms": looked}
    for start in range(size, size + APPENDS * EACH, EACH):
        table.add([row(number, queries[number % BATCH]) for number in range(start, start + EACH)])
    table.search(queries[0], k)
    after = times(searches["table"], queries, repeats)
    yield {"search": f"table, after {APPENDS} writes of {EACH} rows", **after}


def filled(path: Path, vectors: np.ndarray) -> Table:
    """Return a table of these vectors."""
    table = Table.create(path, EncoderInfo("benchmark", "1", "none", vectors.shape[1]), {"year": int})
    with table.writer():
        for start in range(0, len(vectors), 8192):
            table.add([row(start + i, vector) for i, vector in enumerate(vectors[start : start + 8192])])
        table.compact()
    return table


def flat_index(vectors: np.ndarray) -> Callable[[np.ndarray, int], list[list[int]]]:
    """Return the search of a FAISS flat index, on one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda queries, k: [found.tolist() for found in index.search(queries, k)[1]]


def times(search: Callable[[np.ndarray], object], queries: np.ndarray, repeats: int) -> dict[str, float]:
    """Return the processor time of one query alone and of one among BATCH."""
    single = cpu_ms(lambda: search(queries[:1]), repeats)
    return {"single_cpu_ms": single, "batch_cpu_ms": cpu_ms(lambda: search(queries), repeats) / BATCH}


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of unit length as float32."""
    made: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def row(number: int, vector: np.ndarray) -> Row:
    """Return a row of a table; its year goes from 0 to 99."""
    name = f"{number:07}.jpg"
    return Row(name, f"file:///photos/{name}", f"{number:064x}", 640, 480, None, {"year": number % 100}, vector)


def ids(found: list[list[Any]]) -> list[list[int]]:
    """Return the numbers of the rows that were found."""
    return [[int(candidate.id[:7]) for candidate in one] for one in found]


def recall(truth: list[list[int]], found: list[list[int]]) -> float:
    """Return the share of the right rows that were found."""
    return sum(len(set(a) & set(b)) for a, b in zip(truth, found, strict=True)) / sum(map(len, truth))


def cpu_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of a call, in milliseconds."""
    call()
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    print(f"{'items':>8}  {'search':<40}{'one query':>12}{'of 64':>9}{'recall':>8}   (cpu ms per query)")
    for one in rows:
        batch, found = one.get("batch_cpu_ms"), one.get("recall")
        print(
            f"{one['items']:>8}  {one['search']:<40}{one['single_cpu_ms']:>12.2f}"
            f"{'' if batch is None else f'{batch:.2f}':>9}{'' if found is None else f'{found:.4f}':>8}"
        )
