"""Indexing: items per second, and memory above the loaded encoder for few and for many pictures.

    python benchmarks/indexing.py                             # 1,000 and 20,000 pictures with the bundled encoder
    python benchmarks/indexing.py --counts 1000,5000 --encoder none
    python benchmarks/indexing.py --counts 60 --side 4000 --warm 4 --ways plain,dataloader,ours   # photos of 12 MP
    python benchmarks/indexing.py --counts 10000 --side 4000 --warm 4 --distinct 40   # takes 24 GB of disk

Makes JPEGs with grain from a seed, then indexes each number of them in a process of its own. With `--distinct N` only N
are made; the others are copies that end with bytes of their own, so that each is a file that is read and encoded.
`growth_mb` is the most memory (RSS) in use during the run above what it was with the encoder loaded and one small table
indexed; it must not rise with the number of pictures. `--ways` compares with what people write themselves (`_loops`).
`--encoder none` takes mean colours, so that only our own part is measured. `items_cpu_s` counts processor time and
holds on a machine that is busy. Prints a table and, as its last line, one JSON object {"rows", …}.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
from _loops import WAYS
from _smoke import finish, parse
from PIL import Image

from looktwice.indexing import index
from looktwice.sources import scan
from looktwice.store import Table
from looktwice.types import Encoder, EncoderInfo, Item

COLUMNS = ("way", "pictures", "items_s", "items_cpu_s", "baseline_mb", "growth_mb", "bytes_per_item")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    if args.child:
        print(json.dumps(child(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        pictures = Path(folder) / "pictures"
        counts = [int(count) for count in args.counts.split(",")]
        for count in sorted({args.warm, *counts}):
            make_pictures(pictures / str(count), count, args)
        options = sys.argv[1:] if argv is None else argv
        rows = [measure(folder, count, way, options) for count in counts for way in args.ways.split(",")]
    print("  ".join(f"{name:>14}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{row[name]:>14}" for name in COLUMNS))
    record = {"rows": rows, "encoder": args.encoder, "side": args.side, "batch_size": args.batch_size}
    device = platform.processor() or platform.machine()
    finish("indexing", args, {**record, "threads": args.threads, "device": device})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of indexing.")
    parser.add_argument("--counts", default="1000,20000")
    parser.add_argument("--encoder", default="tiny-clip", help="the name of an encoder, or none")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--distinct", type=int, help="images that are made; the others are copies of them")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; the system's temporary folder unless told")
    parser.add_argument("--warm", type=int, default=256, help="pictures indexed before memory is first looked at")
    parser.add_argument("--ways", default="ours", help="ours, and for comparison plain, dataloader")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--way", default="ours", help=argparse.SUPPRESS)
    return parse(parser, argv, counts="24", warm=8, side=32, threads=1)


def make_pictures(folder: Path, count: int, args: argparse.Namespace) -> None:
    """Write `count` JPEGs, no two the same, 1,000 to a folder."""
    dice = np.random.default_rng(args.seed)
    made: list[bytes] = []
    for number in range(count):
        part = folder / f"{number // 1000:03}"
        part.mkdir(parents=True, exist_ok=True)
        if number < (args.distinct or count):
            data = make_picture(dice, args.side)
            made += [data] if args.distinct else []
        else:
            data = made[number % args.distinct] + number.to_bytes(4)
        (part / f"{number:06}.jpg").write_bytes(data)


def make_picture(dice: np.random.Generator, side: int) -> bytes:
    """Return a JPEG of smooth colours with grain."""
    small = Image.fromarray(dice.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    smooth = small.resize((side, side * 3 // 4), Image.Resampling.BILINEAR)
    grain = Image.effect_noise(smooth.size, 24).convert("RGB")
    out = io.BytesIO()
    Image.blend(smooth, grain, 0.25).save(out, "JPEG", quality=85)
    return out.getvalue()


def measure(folder: str, count: int, way: str, options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, *options, "--folder", folder, "--child", str(count), "--way", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def child(args: argparse.Namespace) -> dict[str, Any]:
    encoder = _encoder(args)
    pictures = Path(args.folder) / "pictures"
    run = _ours if args.way == "ours" else _theirs
    run(encoder, pictures / str(args.warm), Path(args.folder) / f"warm-{args.way}-{args.child}.lt", args)
    with Peak() as peak:
        baseline, wall, cpu = _resident(), time.perf_counter(), _processor_time()
        per_item = run(encoder, pictures / str(args.child), Path(args.folder) / f"{args.child}.lt", args)
        wall, cpu = time.perf_counter() - wall, _processor_time() - cpu
    return {
        "way": args.way,
        "pictures": args.child,
        "items_s": round(args.child / wall, 1),
        "items_cpu_s": round(args.child / cpu, 1),
        "baseline_mb": round(baseline / 2**20, 1),
        "growth_mb": round((peak.most - baseline) / 2**20, 1),
        "bytes_per_item": per_item,
    }


def _ours(encoder: Encoder, folder: Path, path: Path, args: argparse.Namespace) -> int:
    table = Table.create(path, encoder.info)
    report = index(table, scan([folder]), encoder, batch_size=args.batch_size, threads=args.threads)
    assert report.failed == 0 and len(table) == report.added
    return int(table.info()["bytes_per_item"]["total"])


def _theirs(encoder: Encoder, folder: Path, path: Path, args: argparse.Namespace) -> int:
    paths = sorted(folder.rglob("*.jpg"))
    rows = WAYS[args.way](encoder, paths)
    assert len(rows) == len(paths) and np.isfinite(rows).all()
    return 0


class Peak:
    """The most memory of this process and of the ones that it starts, looked at 50 times a second."""

    def __init__(self) -> None:
        self.most, self._over = 0, Event()

    def __enter__(self) -> Self:
        Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, _resident())


def _processor_time() -> float:
    """Seconds of processor time of this process and of its ended children."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _resident() -> int:
    """Return the bytes of this process and of its children in memory; what a fork shares counts once for each."""
    own = psutil.Process()
    total = own.memory_info().rss
    for one in own.children(recursive=True):
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return int(total)


def _encoder(args: argparse.Namespace) -> Encoder:
    if args.encoder == "none":
        return MeanColours()
    from looktwice.encode import load_encoder
    from looktwice.models.device import set_threads

    set_threads(1)
    return load_encoder(args.encoder)


class MeanColours:
    """512 numbers from the mean colours of 13 x 13 cells: as many as a real encoder gives, at next to no cost."""

    info = EncoderInfo("mean-colours", "1", "box13", 512)

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        rows = np.ones((len(items), 512), np.float32)
        for row, item in zip(rows, items, strict=True):
            assert item.image is not None
            row[:507] = np.asarray(item.image.resize((13, 13), Image.Resampling.BOX)).ravel()
        unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


if __name__ == "__main__":
    main()
