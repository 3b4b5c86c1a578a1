"""Scale: a large table on disk against FAISS, requests of a search in a bucket, and workers of a Ray cluster.

    python benchmarks/scale.py --rows 1000000                # the table; hours for 10^7
    python benchmarks/scale.py --only bucket,workers

Vectors are drawn with a seed around 400 centres. The queries are held out. With --folder the table stays, and a second
run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _smoke
import numpy as np
import psutil

from looktwice import buckets
from looktwice.store import Table, ann, batched, exact, exists, matrix
from looktwice.store.schema import Row, items_schema
from looktwice.types import EncoderInfo

if TYPE_CHECKING:
    from _jobs import Job

BLOCK, CENTRES, DEPTH = 65_536, 400, 100
WAITS = {"5 ms of waiting": -5}
KINDS = {"no work": 0, **WAITS, "30 ms of work": 60}
MOST_FLAT = 2**32  # bytes of a flat index that is still measured
WARM = 8  # shards before the time counts
_METHOD = re.compile("(GET|HEAD|PUT|POST|DELETE) /")
PARTS = ("table", "appends", "bucket", "workers")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--appends", type=int, default=10_000, help="commits of one row each")
    parser.add_argument("--folder", type=Path, help="keep the table here, and use what is there already")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    options = _smoke.parse(parser, argv, rows=3000, dim=64, queries=4, appends=40)
    chosen = set(options.only.split(","))
    record: dict[str, Any] = {"rows": options.rows, "dim": options.dim}
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if "table" in chosen:
            record["table"] = list(_shown(large_table(folder / "large.lt", options)))
        if "appends" in chosen:
            record["appends"] = list(_shown(small_appends(folder / "appends.lt", options)))
        if "bucket" in chosen:
            record["bucket"] = list(_shown(in_a_bucket(options)))
        if "workers" in chosen:
            record["workers"] = list(_shown(on_workers(_work(Path(name), options.smoke))))
    _smoke.finish("scale", options, record)


def _shown(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        yield row


def blocks(rows: int, dim: int) -> Iterator[np.ndarray]:
    """Yield unit vectors [BLOCK, dim] as float16; the same ones for the same size."""
    centres = _centres(dim)
    for start in range(0, rows, BLOCK):
        yield _drawn(start + 1, centres, min(BLOCK, rows - start)).astype(np.float16)


def _centres(dim: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(CENTRES, dim)).astype(np.float32)


def _drawn(seed: int, centres: np.ndarray, size: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    found = centres[draw.zipf(1.3, size) % CENTRES] + 1.5 * draw.standard_normal((size, centres.shape[1]), np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def made_table(path: str | Path, rows: int, dim: int) -> Table:
    """Return a table of these vectors, written in one commit."""
    import pyarrow as pa

    table = Table.create(path, EncoderInfo("benchmark", "1", "none", dim))
    schema = items_schema(dim, {})

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for vectors in blocks(rows, dim):
            names = pa.array([f"{number:09}.jpg" for number in range(start, start + len(vectors))])
            text = pa.array(["{}"] * len(vectors))
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
            own: dict[str, Any] = {"id": names, "vector": flat, "sha256": names, "uri": names, "root": text}
            own["indexed_at"] = pa.nulls(len(vectors))
            number = pa.array(np.full(len(vectors), 8, np.int32))
            columns = [own.get(f.name, number if pa.types.is_integer(f.type) else text) for f in schema]
            yield pa.record_batch([c.cast(f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            start += len(vectors)

    with table.writer():
        table._items.add(pa.RecordBatchReader.from_batches(schema, batches()))
    return Table.open(path)


def large_table(path: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure filling, building, searching, and the memory of a process that searches."""
    if options.smoke:
        ann.EXACT_ROWS, matrix.MOST_BYTES = 1000, 0
    asked = _queries(options.queries, options.dim)
    if not exists(path):
        table, seconds = _timed(lambda: made_table(path, options.rows, options.dim))
        yield {"what": "written", "seconds": round(seconds, 1), "bytes": table.location.size()}
    table = Table.open(path)
    truth, seconds = _timed(lambda: table._space().stream(exact.units_of(asked, options.dim), DEPTH))
    yield {"what": "exact, all queries in one pass", "ms_per_query": round(1000 * seconds / len(asked), 1)}
    if table.manifest.index is None:
        yield _built(table)
    for effort in ({"nprobes": 16, "refine": 1}, {"nprobes": 16, "refine": 2}, {"nprobes": 16, "refine": 20}, None):
        yield _searched(table, effort, asked, truth)
    yield {"what": "a process that searches", **_searcher(path, options)}
    yield from _faiss(options, asked, [[row.id for row in rows] for rows in truth])


def _built(table: Table) -> dict[str, Any]:
    """Build the index, and measure processor time, bytes and the most memory."""
    begun = sum(psutil.Process().cpu_times()[:2])
    info = table.build_index()
    cpu, size = sum(psutil.Process().cpu_times()[:2]) - begun, table.info()["bytes"]["index"]
    return {
        "what": "index built", "seconds": info.seconds, "cpu_seconds": round(cpu, 1), "partitions": info.partitions,
        "nprobes": info.nprobes, "refine": info.refine, "recall_own_rows": info.recall,
        "bytes": size, "bytes_per_row": round(size / len(table), 1), "most_mb": round(_most_memory()),
    }  # fmt: skip


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _searched(table: Table, effort: dict[str, int] | None, asked: np.ndarray, truth: list[Any]) -> dict[str, Any]:
    """Measure recall and the median latency with an effort; None: with the effort that the table has chosen."""
    space = table._space()
    if effort is not None:
        space = replace(space, index=effort)
    times = [_timed(partial(space.search, query[None], DEPTH)) for query in asked]
    return {
        "what": "search, as tuned" if effort is None else f"search, {effort}",
        "recall": round(ann.recall(truth, [found[0] for found, _ in times]), 4),
        "ms": round(1000 * statistics.median(seconds for _, seconds in times), 1),
    }  # fmt: skip


def _opened_search(path: Path, vector: np.ndarray) -> Any:
    return Table.open(path).search(vector, 10)


def small_appends(path: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Commit one row at a time, and measure at every power of ten what has become of files, versions and latency."""
    table = Table.create(path, EncoderInfo("benchmark", "1", "none", options.dim))
    times: list[float] = []
    for number, vector in enumerate(_drawn(0, _centres(options.dim), options.appends), start=1):
        row = Row(f"{number:09}.jpg", f"file:///{number:09}.jpg", f"{number:064x}", 8, 8, None, {}, vector)
        times.append(_timed(partial(table.add, [row]))[1])
        if number in (10, 100, 1000, 10_000, options.appends):
            searches = [_timed(partial(_opened_search, path, vector))[1] for _ in range(20)]
            items = table._items
            yield {
                "what": f"{number} appends of one row", "add_ms": round(1000 * statistics.median(times[-100:]), 1),
                "slowest_add_ms": round(1000 * max(times[-1000:])),
                "open_and_search_ms": round(1000 * statistics.median(searches), 1),
                "files": sum(file.is_file() for file in path.rglob("*")), "versions": len(items.list_versions()),
                "fragments": items.stats()["fragment_stats"]["num_fragments"],
            }  # fmt: skip


def _queries(count: int, dim: int) -> np.ndarray:
    """Return vectors that no block has."""
    return _drawn(0, _centres(dim), count)


def _searcher(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the latency of the first search, after the kernel has forgotten the files, and of later ones."""
    _forget(path)
    argv = [sys.executable, __file__, "--as-searcher", str(path), str(options.queries), str(options.dim)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    cold, warm, most = map(float, done.stdout.split())
    return {"first_ms": round(cold, 1), "warm_ms": round(warm, 1), "resident_mb": round(most)}


def search_alone(path: str, count: str, dim: str) -> None:
    """Print milliseconds of the first search, the median of the later ones, and megabytes of memory."""
    asked = _queries(int(count), int(dim))
    before = psutil.Process().memory_info().rss
    table = Table.open(path)
    times = [_timed(partial(table.search, query, DEPTH))[1] for query in asked]
    print(1000 * times[0], 1000 * statistics.median(times[1:]), (psutil.Process().memory_info().rss - before) / 2**20)


def _forget(folder: Path) -> None:
    """Ask the kernel to drop a folder's files from its cache."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _faiss(options: argparse.Namespace, asked: np.ndarray, truth: list[list[str]]) -> Iterator[dict[str, Any]]:
    """Measure FAISS on the same vectors: IVF with 1-bit RaBitQ, plain and refined, and a flat index if it fits."""
    import faiss

    faiss.omp_set_num_threads(1)
    lists = max(1, int(options.rows**0.5) // 2)
    bits = f"RR{options.dim},IVF{lists},RaBitQ"
    flat = {"Flat": [(0, 0)]} if options.rows * options.dim * 4 <= MOST_FLAT else {}
    for name, efforts in {bits: [(32, 0)], f"{bits},Refine(SQ8)": [(32, 5), (128, 20), (lists, 100)], **flat}.items():
        index = faiss.index_factory(options.dim, name, faiss.METRIC_INNER_PRODUCT)
        _, built = _timed(partial(_filled, index, lists, options))
        for nprobe, factor in efforts:
            if nprobe:
                faiss.ParameterSpace().set_index_parameter(index, "nprobe", min(nprobe, lists))
            if factor:
                faiss.ParameterSpace().set_index_parameter(index, "k_factor_rf", factor)
            times = [_timed(partial(index.search, query[None], DEPTH)) for query in asked]
            found = [{f"{n:09}.jpg" for n in rows[1][0]} for rows, _ in times]
            hits = sum(len(mine & set(right)) for mine, right in zip(found, truth, strict=True))
            yield {
                "what": f"FAISS {name}", "nprobe": nprobe, "refine": factor, "seconds": round(built, 1),
                "recall": round(hits / len(asked) / DEPTH, 4),
                "ms": round(1000 * statistics.median(seconds for _, seconds in times), 2),
            }  # fmt: skip


def _filled(index: Any, lists: int, options: argparse.Namespace) -> None:
    if not index.is_trained:
        sample = list(blocks(min(options.rows, 40 * lists + BLOCK), options.dim))
        index.train(np.concatenate(sample).astype(np.float32))
    for vectors in blocks(options.rows, options.dim):
        index.add(vectors.astype(np.float32))


def _timed(call: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    return call(), time.perf_counter() - begun


class _Requests(logging.Handler):
    """Counts the requests that a server logs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if found := _METHOD.search(record.getMessage()):
            self.seen[found[1]] += 1

    def taken(self) -> dict[str, int]:
        found, self.seen = dict(self.seen), Counter()
        return {"requests": sum(found.values()), **dict(sorted(found.items()))}


def in_a_bucket(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Count the requests of each step for a table in a bucket of a server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server, counted, log = ThreadedMotoServer(port=0, verbose=False), _Requests(), logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.handlers, log.propagate = [counted], False
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_REGION="us-east-1")
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="scale")
    buckets.configure({"aws_endpoint": url, "allow_http": "true"})
    rows = min(options.rows, 60_000)
    ann.EXACT_ROWS, matrix.MOST_BYTES = 1000, 0  # so that the search goes through the index, as in a large table
    counted.taken()
    table = made_table("s3://scale/t.lt", rows, options.dim)
    yield {"what": f"a table of {rows} rows created and written", **counted.taken()}
    table.build_index()
    yield {"what": "index built and measured", **counted.taken()}
    asked = _queries(3, options.dim)
    table, seconds = _timed(partial(Table.open, "s3://scale/t.lt"))
    yield {"what": "open", **counted.taken(), "ms": round(1000 * seconds)}
    for which, query in zip(("first search", "second search", "third search"), asked, strict=True):
        found, seconds = _timed(partial(table.search, query, DEPTH))
        yield {"what": which, **counted.taken(), "ms": round(1000 * seconds)}
    table.lookup([row.id for row in found], ["id", "uri"])
    yield {"what": "look-up of 100 rows", **counted.taken()}
    server.stop()


class Busy:
    """Work of a worker: products of matrices that take about as long as one image takes an encoder.

    Negative `repeats` are milliseconds to wait for each item, as for a device of its own.
    """

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats

    def __call__(self) -> Any:
        one = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)

        def work(shard: list[int]) -> list[int]:
            time.sleep(len(shard) * max(0, -self.repeats) / 1000)
            for _ in range(len(shard) * self.repeats):
                one @ one
            return shard

        return work


class Counted:
    """Work that also returns its process and its processor time, which other work on the machine hardly moves."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self) -> Any:
        work = self.make()

        def counted(shard: Any) -> tuple[Any, int, float]:
            begun = time.process_time()
            return work(shard), os.getpid(), time.process_time() - begun

        return counted


def _work(folder: Path, smoke: bool) -> dict[str, Job]:
    """Return work by its name: waiting or products of matrices and, but for a smoke run, the jobs of `--ray`."""
    items, kinds = (192, WAITS) if smoke else (1500, KINDS)
    shards: list[Sequence[Any]] = list(batched(range(items), 16))
    made: dict[str, Job] = {what: (Busy(repeats), shards) for what, repeats in kinds.items()}
    if smoke:
        return made
    from _jobs import real_jobs  # loads torch

    return {**made, **real_jobs(folder, 1500)}


def on_workers(jobs: dict[str, Job]) -> Iterator[dict[str, Any]]:
    """Measure shards of work on one and on two workers, once all work, and what the driver adds."""
    import ray
    from ray import cloudpickle

    from looktwice.models.cluster import Cluster

    found: dict[int, list[dict[str, float]]] = {}
    for workers in (1, 2):
        ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no benchmarks/
        found[workers] = [_spread(Cluster("auto"), *job) for job in jobs.values()]
        ray.shutdown()
    for (what, (_, shards)), one, two in zip(jobs.items(), found[1], found[2], strict=True):
        items = sum(map(len, shards[WARM:]))
        yield {
            "what": what, "items": items, "start_up_s": round(one["start_up"], 1),
            "ms_per_item_1": round(1000 * one["wall"] / items, 3),
            "ms_per_item_2": round(1000 * two["wall"] / items, 3),
            "driver_cpu_ms_per_item": round(1000 * two["driver"] / items, 3),
            "speed_up": round(one["wall"] / two["wall"], 2),
            "speed_up_cpu": round(one["busiest"] / two["busiest"], 2) if two["busiest"] else None,
        }  # fmt: skip


def _spread(cluster: Any, work: Any, shards: list[Sequence[Any]]) -> dict[str, float]:
    """Return seconds until all workers work, of the rest, and of the processors of driver and busiest worker."""
    results = cluster.map(Counted(work), shards)
    _, started = _timed(partial(list, islice(results, WARM)))
    begun = time.process_time()
    done, wall = _timed(partial(list, results))
    driver = time.process_time() - begun
    assert len(done) == len(shards) - WARM
    busy: Counter[int] = Counter()
    for _, process, seconds in done:
        busy[process] += seconds
    return {"start_up": started, "wall": wall, "driver": driver, "busiest": max(busy.values())}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-searcher"]:
        search_alone(*sys.argv[2:])
    else:
        main()
