"""Upsert of items from memory: items per second, inserted, unchanged, with new metadata, and one at a time.

    python benchmarks/upsert.py                  # 10,000 arrays of 256 x 256 with tiny-clip
    python benchmarks/upsert.py --encoder none   # without a model: what reading, hashing, previews and commits take
    python benchmarks/upsert.py --previews 0     # without previews

Images are arrays of smooth noise with a seed, all different. `cpu_ms` is processor time of all threads per item and
holds on a busy machine; `items_s` is what the clock says. `peak_mb` is the most memory so far of this process, models
and libraries included. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.store import Table
from looktwice.store.upsert_report import UpsertReport
from looktwice.types import Encoder, EncoderInfo, Item

COLUMNS = ("what", "items", "items_s", "cpu_ms", "encoded", "bytes_item", "peak_mb")


class NoModel:
    """An encoder that only sums pixels, so that everything else is measured."""

    info = EncoderInfo("none", "1", "none", 64)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        vectors = np.ones((len(items), 64), np.float32)
        for row, item in zip(vectors, items, strict=True):
            row[0] = np.asarray(item.image, np.float32).mean() if item.image is not None else len(item.text or "")
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    encoder: Any = NoModel() if args.encoder == "none" else args.encoder
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = list(measure(Path(folder) / "bench.lt", encoder, args))
    print("  ".join(f"{name:>12}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{row[name]:>12}" for name in COLUMNS))
    about = {"n": args.n, "side": args.side, "encoder": args.encoder, "previews": args.previews}
    device = platform.processor() or platform.machine()
    finish("upsert", args, {"rows": rows, **about, "threads": args.threads, "device": device})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Upsert of items from memory.")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of a square image")
    parser.add_argument("--single", type=int, default=100, help="calls with one item each")
    parser.add_argument("--encoder", default="tiny-clip", help="an encoder's name, or none")
    parser.add_argument("--previews", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where to make the table; the system's temporary folder unless told")
    return parse(parser, argv, n=80, side=48, single=3)


def measure(path: Path, encoder: str | Encoder, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    table = Table.open_or_create(path, encoder, previews=args.previews)
    table.upsert([{"id": "warm", "image": image(-1, args.side)}])
    steps: dict[str, Callable[[], UpsertReport]] = {
        "insert": lambda: upsert(table, args, 0),
        "unchanged": lambda: upsert(table, args, 0),
        "metadata": lambda: upsert(table, args, 1),
        "only metadata": lambda: table.upsert({"id": f"{n:06}", "metadata": {"price": n + 2.5}} for n in range(args.n)),
    }
    for name, step in steps.items():
        yield timed(name, table, step, args.n)
    yield timed("one by one", table, lambda: one_by_one(table, args), args.single)


def upsert(table: Table, args: argparse.Namespace, extra: float) -> UpsertReport:
    return table.upsert(
        ({"id": f"{n:06}", "image": image(n, args.side), "metadata": {"price": n + extra}} for n in range(args.n)),
        threads=args.threads,
    )


def one_by_one(table: Table, args: argparse.Namespace) -> UpsertReport:
    for n in range(args.single):
        done = table.upsert([{"id": f"single-{n}", "image": image(args.n + n, args.side)}])
    return done


def image(number: int, side: int) -> np.ndarray:
    """Return smooth noise: eight by eight random colours, stretched."""
    small = np.random.default_rng(number + 1).integers(1, 255, (8, 8, 3), np.uint8)
    return np.repeat(np.repeat(small, -(-side // 8), 0), -(-side // 8), 1)[:side, :side]


def timed(name: str, table: Table, step: Callable[[], UpsertReport], items: int) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    done = step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert not done.failed, done.failures[:3]
    return {
        "what": name,
        "items": items,
        "items_s": round(items / wall, 1),
        "cpu_ms": round(1000 * cpu / items, 2),
        "encoded": done.encoded,
        "bytes_item": round(table.info()["bytes_per_item"]["total"]),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


if __name__ == "__main__":
    main()
