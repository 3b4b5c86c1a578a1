"""A running server: pairs per second against the engine alone, waiting behind others, memory, overload.

    python benchmarks/serve.py                       # all parts; about 25 minutes on two cores
    python benchmarks/serve.py --only throughput --repeats 5
    python benchmarks/serve.py --only throughput --clock cpu    # processor time: for a machine with other work on it
    python benchmarks/serve.py --smoke

The server is a process of its own over a table of the bundled gallery, with the bundled models; clients speak HTTP.
`throughput`: searches of distinct query images by 1, 4 and 16 clients, in turns with the same searches by a Retriever
in this process; both have seen every image before, and the best of `--repeats` counts on both sides. `waiting`: ten
pairs alone and behind a thousand; first looks at 10 requests a second while a thousand pairs run. `memory`: resident
memory of the server over `--requests` requests. `overload`: requests arrive at four times the measured rate for
`--seconds`. Prints one line per figure and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import httpx
import psutil
from _smoke import finish, parse

import looktwice
from looktwice import Retriever, index, load_encoder, scan
from looktwice.models.device import set_threads
from looktwice.store import Table

IMAGES = Path(looktwice.__file__).parent / "assets" / "tiny" / "gallery" / "images"
PARTS = ("throughput", "waiting", "memory", "overload")
CLIENTS = (1, 4, 16)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen parts and print what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part")
    parser.add_argument("--items", type=int, default=400, help="images in the table")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of one search")
    parser.add_argument("--searches", type=int, default=16, help="searches of one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of the throughput part")
    parser.add_argument("--big", type=int, default=1000, help="pairs of the request that others wait behind")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the memory part")
    parser.add_argument("--seconds", type=float, default=600, help="seconds of overload")
    small = {"items": 16, "pairs": 8, "searches": 2, "repeats": 1, "big": 32, "requests": 20, "seconds": 0.5}
    options = parse(parser, argv, **small)
    set_threads(int(os.environ["OMP_NUM_THREADS"]))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = make_table(Path(folder) / "gallery.lt", options.items)
        with served(table, options) as (url, process):
            for part in options.only or PARTS:
                found[part] = globals()[part](url, process, table, options)
                for name, value in found[part].items():
                    print(f"{part:<11} {name:<32} {value}", flush=True)
    finish("serve", options, {"rows": [{"part": part, **values} for part, values in found.items()]})
    return 0


def make_table(path: Path, items: int) -> Path:
    """Index the first images of the gallery."""
    encoder = load_encoder("tiny-clip")
    sources = sorted(scan([IMAGES]), key=lambda source: str(source.uri))[:items]
    index(Table.create(path, encoder.info), sources, encoder)
    return path


@contextmanager
def served(table: Path, options: argparse.Namespace) -> Iterator[tuple[str, psutil.Process]]:
    """Start `looktwice serve` and stop it at the end."""
    most = max(2 * options.big, 1000)
    command = [sys.executable, "-m", "looktwice", "serve", str(table), "--port", "0", "--max-queued-pairs", str(most)]
    command += ["--threads", os.environ["OMP_NUM_THREADS"]]  # as many as the engine that it is compared with
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


# --- throughput -------------------------------------------------------------------------------------------------------


def throughput(url: str, process: psutil.Process, table: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare searches through the server with the same searches by a Retriever."""
    retriever = Retriever(table, scorer="tiny-vl", shortlist=options.pairs)
    queries = sorted(IMAGES.glob("*.jpg"))[: options.searches]
    warm = Retriever(table, scorer=retriever.reranker, shortlist=options.items)
    warm.search(queries[0])  # every image once through the vision tower, on both sides
    retriever.search(queries[0])
    asyncio.run(ask_all(url, queries[:1], options.items, 1))
    asyncio.run(ask_all(url, queries, options.pairs, 1))
    engine: list[float] = []
    server: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
    for _ in range(options.repeats):
        for clients in CLIENTS:
            begin = spent(psutil.Process(), options.clock)
            for query in queries:
                retriever.search(query)
            engine.append(options.pairs * len(queries) / (spent(psutil.Process(), options.clock) - begin))
            begin = spent(process, options.clock)
            asyncio.run(ask_all(url, queries, options.pairs, clients))
            server[clients].append(options.pairs * len(queries) / (spent(process, options.clock) - begin))
    best = max(engine)
    rows = {f"pairs/s, {clients} clients": round(max(rates), 1) for clients, rates in server.items()}
    shares = {f"share of engine, {clients} clients": round(max(rates) / best, 3) for clients, rates in server.items()}
    return {"engine pairs/s": round(best, 1), **rows, **shares}


async def ask_all(url: str, queries: Sequence[Path], shortlist: int, clients: int) -> None:
    """Send one search per query, `clients` at once."""
    gate = asyncio.Semaphore(clients)
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:

        async def ask(query: Path) -> None:
            async with gate:
                answer = await client.post(
                    "/v1/search", json={"query": {"image": coded(query)}, "shortlist": shortlist}
                )
                answer.raise_for_status()

        await asyncio.gather(*map(ask, queries))


# --- waiting ----------------------------------------------------------------------------------------------------------


def waiting(url: str, process: psutil.Process, table: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure ten pairs alone and behind many, and first looks meanwhile."""
    return asyncio.run(_waiting(url, options))


async def _waiting(url: str, options: argparse.Namespace) -> dict[str, Any]:
    images = [{"image": coded(path)} for path in sorted(IMAGES.glob("*.jpg"))]
    big = {"query": images[0], "documents": [images[n % len(images)] for n in range(options.big)]}
    small = {"query": images[1], "documents": images[:10]}
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
        (await client.post("/v1/rerank", json=big)).raise_for_status()
        alone = [await latency(client, "/v1/rerank", {**small, "query": images[n]}) for n in range(3, 8)]
        begin = time.perf_counter()
        running = asyncio.create_task(client.post("/v1/rerank", json={**big, "query": images[20]}))
        await asyncio.sleep(min(1.0, options.big / 1000))
        behind = [await latency(client, "/v1/rerank", {**small, "query": images[n]}) for n in range(30, 33)]
        looks = await first_looks(client, images[40:], running)
        (await running).raise_for_status()
        took = time.perf_counter() - begin
    ordered = sorted(looks)
    return {
        "10 pairs alone, s": round(statistics.median(alone), 3),
        "10 pairs behind many, s": round(statistics.median(behind), 3),
        "the many, s": round(took, 2),
        "first looks": len(ordered),
        "first look p50, ms": round(1000 * statistics.median(ordered), 1),
        "first look p99, ms": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 1),
    }


async def first_looks(client: httpx.AsyncClient, images: Sequence[Any], running: asyncio.Task[Any]) -> list[float]:
    """Send ten first looks a second until `running` ends, and return how long each took."""
    asked: list[asyncio.Task[float]] = []
    while not running.done() or len(asked) < 10:
        body = {"query": images[len(asked) % len(images)], "rerank": False, "k": 10}
        asked.append(asyncio.create_task(latency(client, "/v1/search", body)))
        await asyncio.sleep(0.1)
    return list(await asyncio.gather(*asked))


async def latency(client: httpx.AsyncClient, path: str, body: Any) -> float:
    """Return the seconds of one request."""
    begin = time.perf_counter()
    (await client.post(path, json=body)).raise_for_status()
    return time.perf_counter() - begin


# --- memory and overload ----------------------------------------------------------------------------------------------


def memory(url: str, process: psutil.Process, table: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the server's resident memory after a tenth, half and all of many requests."""
    images = [coded(path) for path in sorted(IMAGES.glob("*.jpg"))]
    sizes: dict[str, Any] = {}
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        for number in range(options.requests):
            image = images[number % len(images)]
            if number % 20 == 0:
                body = {"query": {"image": image}, "shortlist": 4, "k": 4}
            else:
                body = {"query": {"image": image}, "rerank": False}
            client.post("/v1/search", json=body).raise_for_status()
            if number + 1 in {options.requests // 10, options.requests // 2, options.requests}:
                sizes[f"MB after {number + 1} requests"] = megabytes(process)
    return sizes


def overload(url: str, process: psutil.Process, table: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Send four times what the server can do, and count what becomes of each request."""
    return asyncio.run(_overload(url, process, options))


async def _overload(url: str, process: psutil.Process, options: argparse.Namespace) -> dict[str, Any]:
    images = [{"image": coded(path)} for path in sorted(IMAGES.glob("*.jpg"))]
    size = min(50, options.pairs, options.big)
    codes: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as client:

        async def ask(number: int) -> None:
            documents = [images[(number + n) % len(images)] for n in range(size)]
            try:
                answer = await client.post(
                    "/v1/rerank", json={"query": images[number % len(images)], "documents": documents}
                )
                codes[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                codes[type(error).__name__] += 1

        for number in range(0, len(images), size):  # every image's tokens are kept from here on
            await ask(number)
        begin = time.perf_counter()
        await asyncio.gather(*(ask(n) for n in range(4)))
        gap = (time.perf_counter() - begin) / 4 / 4
        codes.clear()
        asked: list[asyncio.Task[None]] = []
        sizes = [megabytes(process)]
        begin = time.perf_counter()
        while (passed := time.perf_counter() - begin) < options.seconds:
            asked.append(asyncio.create_task(ask(len(asked))))
            await asyncio.sleep(gap)
            if passed > options.seconds * len(sizes) / 10:
                sizes.append(megabytes(process))
        await asyncio.gather(*asked)
    return {
        "requests": len(asked),
        "answered": codes["200"],
        "refused with 429": codes["429"],
        "anything else": sum(codes.values()) - codes["200"] - codes["429"],
        "lost": len(asked) - sum(codes.values()),
        "MB at the start and after each tenth": [*sizes, megabytes(process)],
    }


def megabytes(process: psutil.Process) -> float:
    """Return the resident memory of a process."""
    return round(process.memory_info().rss / 1e6, 1)


def coded(path: Path) -> str:
    """Return an image as base64."""
    return base64.b64encode(path.read_bytes()).decode()


def spent(process: psutil.Process, clock: str) -> float:
    """Return seconds on the wall, or of processor time that a process has used."""
    if clock == "wall":
        return time.perf_counter()
    used = process.cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    sys.exit(main())
