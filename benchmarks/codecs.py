"""Speed and size of the codecs for visual tokens, on synthetic tokens.

    python benchmarks/codecs.py                      # width 3584, 27 × 27 tokens, CPU
    python benchmarks/codecs.py --width 2048 --side 16 --levels 3 --device cuda
    python benchmarks/codecs.py --train 3000         # also time the training of a codebook on so many tokens

Prints a table and, as its last line, one JSON object: {"rows": [...], "width", "tokens", "levels", "device", …}.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import faiss
import torch
from _smoke import finish, parse

from looktwice.codecs import Codebook, Codec, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.types import Block, VisualTokens

SPECS = (
    "none", "int8", "rsq4", "pq8", "opq8", "pq16", "opq16", "pq16x6", "late64+opq4", "pool2", "sample2",
    "pool2:replicate", "group4", "cluster70", "pool2+pq16", "cluster70+pq16",
)  # fmt: skip
COLUMNS = ("codec", "bytes", "share", "kept", "encode_tokens_s", "decode_tokens_s", "decode_batch_tokens_s", "error")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    images = make_images(args)
    plain = parse_codec("none").image_bytes(images[0].layout, args.width, args.levels)
    rows = [measure(parse_codec(spec), images, args, plain) for spec in args.specs]
    print("  ".join(f"{name:>22}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{show(row[name]):>22}" for name in COLUMNS))
    tokens = len(images[0].features)
    record: dict[str, object] = {
        "rows": rows,
        "width": args.width,
        "tokens": tokens,
        "levels": args.levels,
        "device": args.device,
    }
    record |= {"dtype": args.dtype, "threads": args.threads, "clock": "cpu" if args.cpu_time else "wall"}
    if args.train:
        trained = record["train"] = [time_training(spec, args) for spec in ("pq8", "opq8", "pq16", "opq16")]
        print("\n".join(f"{one['codec']}: {one['seconds']} s for {one['tokens']} tokens" for one in trained))
    finish("codecs", args, record)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and size of the codecs for visual tokens.")
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--side", type=int, default=27)
    parser.add_argument("--levels", type=int, default=0)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=0, help="time the training of codebooks on so many tokens")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, for a machine that is busy")
    parser.add_argument("--specs", nargs="*", default=SPECS)
    parser.add_argument("--seconds", type=float, default=0.5, help="repeat each measurement for so long")
    return parse(parser, argv, width=64, side=12, levels=1, images=1, train=512, seconds=0.0)


def make_images(args: argparse.Namespace) -> list[VisualTokens]:
    """Tokens around 64 centres, neighbours alike, as a tower's are."""
    torch.manual_seed(0)
    layout = (Block("global", args.side, args.side),)
    centres = torch.randn(64, args.width)
    made = []
    for _ in range(args.images):
        which = torch.randint(0, 64, (args.side // 3 + 1, args.side // 3 + 1))
        which = which.repeat_interleave(3, 0).repeat_interleave(3, 1)[: args.side, : args.side].flatten()
        values = centres[which] + 0.5 * torch.randn(1 + args.levels, len(which), args.width)
        values = values.to(args.device, getattr(torch, args.dtype))
        made.append(VisualTokens(values[0], values[1:] if args.levels else None, layout))
    return made


def with_centroids(codec: Codec, args: argparse.Namespace) -> Codec:
    """A codebook of random centroids: as fast as a trained one, and there at once."""
    if not isinstance(codec.quantiser, PQ):
        return codec
    kept = codec.quantiser.late or args.width
    count = codec.quantiser.sub_vectors(kept)
    shape = (1 + args.levels, count, 2**codec.quantiser.bits, kept // count)
    turn = torch.randn(1 + args.levels, kept, args.width) if codec.quantiser.projected else None
    return codec.with_codebook(Codebook(str(codec.quantiser), torch.randn(shape), turn))


def measure(codec: Codec, images: list[VisualTokens], args: argparse.Namespace, plain: int) -> dict[str, object]:
    codec = with_centroids(codec, args)
    data = [codec.encode(image) for image in images]
    layouts = [image.layout for image in images]
    tokens = sum(len(image.features) for image in images)

    def encode() -> object:
        return [codec.encode(image) for image in images]

    def decode() -> object:
        return [codec.decode(one, layout, device=args.device) for one, layout in zip(data, layouts, strict=True)]

    def decode_batch() -> object:
        return codec.decode_batch(data * 8, layouts * 8, device=args.device)

    size = sum(map(len, data)) / len(data)
    return {
        "codec": str(codec),
        "bytes": size,
        "share": size / plain,
        "kept": codec.kept(layouts[0]),
        "encode_tokens_s": rate(tokens, encode, args),
        "decode_tokens_s": rate(tokens, decode, args),
        "decode_batch_tokens_s": rate(8 * tokens, decode_batch, args),
        "error": None if codec.needs_codebook else error(codec, images),
    }


def error(codec: Codec, images: list[VisualTokens]) -> float | None:
    """Squared error over squared length; unknown where tokens are dropped."""
    pairs = [(image.features.float(), codec.round_trip(image).features.float()) for image in images]
    if any(len(a) != len(b) for a, b in pairs):
        return None
    return sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(a.square().sum()) for a, _ in pairs)


def rate(count: int, work: Callable[[], object], args: argparse.Namespace) -> float:
    """Things per second, the best of at least three runs and `--seconds`."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    best, begun, runs = 0.0, time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - begun < args.seconds:
        start = clock()
        work()
        if args.device != "cpu":
            torch.cuda.synchronize()
        best = max(best, count / max(clock() - start, 1e-9))
        runs += 1
    return round(best, 1)


def time_training(spec: str, args: argparse.Namespace) -> dict[str, object]:
    quantiser = parse_codec(spec).quantiser
    assert isinstance(quantiser, PQ)
    torch.manual_seed(1)
    sample = torch.randn(64, args.width)[torch.randint(0, 64, (args.train,))] + 0.5 * torch.randn(
        args.train, args.width
    )
    start = time.perf_counter()
    train_codebook(quantiser, sample[None])
    return {"codec": spec, "tokens": args.train, "seconds": round(time.perf_counter() - start, 1)}


def show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}" if value < 1 else f"{value:,.0f}"
    return "–" if value is None else str(value)


if __name__ == "__main__":
    main()
