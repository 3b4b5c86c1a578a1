"""Speed of the middle look from codes in memory, on synthetic tokens.

    python benchmarks/maxsim.py                                            # tiny-vl's shape: 25 tokens of width 192
    python benchmarks/maxsim.py --views 5                                  # the same with four crops
    python benchmarks/maxsim.py --width 3584 --side 16 --candidates 100    # Qwen2.5-VL's: 256 tokens of width 3,584

Prints a table and, as its last line, one JSON object. `floor` is 2 · T · q · d operations per candidate, the products
of all pairs of tokens; `gflops` is that floor over the measured time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from _smoke import finish, parse

from looktwice.codecs import Codec, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.late_interaction import unit_rows
from looktwice.token_index.crops import view_layouts
from looktwice.token_index.matching import Opened, QueryTokens, grids, scores_of_images, whole
from looktwice.types import Block, VisualTokens

COLUMNS = ("codec", "bytes", "ms", "candidates_s", "floor_mflop", "gflops")
FEW = 64  # images that are encoded; candidates repeat them


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    rows = [measure(spec, args) for spec in args.specs]
    print("  ".join(f"{name:>14}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{row[name]:>14}" for name in COLUMNS))
    shape = {
        name: getattr(args, name) for name in ("width", "side", "views", "candidates", "device", "threads", "cpu_time")
    }
    finish("maxsim", args, {"rows": rows, **shape})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the middle look from codes in memory.")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--side", type=int, default=5)
    parser.add_argument("--views", type=int, default=1, help="grids of each candidate: 5 with crops")
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=9, help="the median of so many runs is printed")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, for a machine that is busy")
    parser.add_argument("--specs", nargs="*", default=("none", "int8", "pq8", "opq8", "pq16", "opq16"))
    return parse(parser, argv, width=32, side=4, candidates=20, repeat=1, specs=("int8", "pq8"))


def measure(spec: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time one query against all candidates, from opened codes to scores."""
    codec, found = made(spec, args)
    torch.manual_seed(1)
    rows = unit_rows(torch.randn(args.side**2, args.width)).to(args.device)
    rows = rows if codec.codebook is None else unit_rows(codec.codebook.rotate(rows, 0))
    query = QueryTokens(rows, grids(found[0][1])[:1], torch.full((len(rows),), 1 / len(rows)).to(args.device))
    views_of = whole if args.views == 1 else view_layouts
    clock = time.process_time if args.cpu_time else time.perf_counter
    seconds = []
    for _ in range(args.repeat + 1):  # the first fills caches
        begin = clock()
        scores_of_images(codec, query, found, views_of)[0].tolist()
        seconds.append(clock() - begin)
    median = sorted(seconds[1:])[args.repeat // 2]
    floor = 2 * args.views * args.side**4 * args.width
    return {
        "codec": spec,
        "bytes": int(found[0][0].codes[0].nbytes),
        "ms": round(1000 * median, 2),
        "candidates_s": round(args.candidates / median),
        "floor_mflop": round(floor / 1e6, 3),
        "gflops": round(floor * args.candidates / median / 1e9, 1),
    }


def made(spec: str, args: argparse.Namespace) -> tuple[Codec, list[Opened]]:
    torch.manual_seed(0)
    layout = (Block("global", args.side, args.side),) * args.views
    tokens = args.views * args.side**2
    few = min(FEW, args.candidates)
    images = [VisualTokens(torch.randn(tokens, args.width), None, layout) for _ in range(few)]
    codec = parse_codec(spec)
    if isinstance(codec.quantiser, PQ):
        sample = torch.cat([image.features for image in images])[None, :4096]
        codec = codec.with_codebook(train_codebook(codec.quantiser, sample))
    opened = [(codec.open(codec.encode(image), layout), layout) for image in images]
    return codec, [opened[n % few] for n in range(args.candidates)]


if __name__ == "__main__":
    main()
