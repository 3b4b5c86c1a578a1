"""Which codecs keep the ranking: bytes against Kendall's τ and mAP, with intervals over labelled queries.

    python benchmarks/frontier.py                              # the bundled gallery: 40 queries, 50 candidates each
    python benchmarks/frontier.py --train FOLDER               # codebooks from tokens of other images
    python benchmarks/frontier.py --scenes FOLDER --depth 20   # 500 composed scenes: 150 queries
    python benchmarks/frontier.py --random Qwen/Qwen2.5-VL-7B-Instruct --queries 6 --depth 10   # its widths, no weights

tiny-vl scores each query with its nearest images, from the tower's own tokens and from each codec's, on both sides.
With `--random` a model does that which has another's widths, few layers and random weights: it knows nothing.
`tau` is that of p against p from the tower's own tokens; `mAP` is that of p, and `change` its paired difference.
`decode` is the CPU time of decoding the candidates, as a share of that of scoring them; `train` the CPU seconds of
training the codebook. Intervals are 95 % bootstrap intervals over queries.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _smoke import finish, parse
from PIL import Image

from looktwice.codecs import Codec, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.codecs.training import MOST_TOKENS
from looktwice.encode import load_encoder
from looktwice.evaluate import Qrels, measure, read_qrels
from looktwice.evaluate.bootstrap import difference, interval
from looktwice.evaluate.scenes import SMALL, build
from looktwice.experiment.demo import bundled_gallery
from looktwice.models.device import place
from looktwice.score import Scorer, load_scorer
from looktwice.score.load import scorer as scorer_of
from looktwice.score.prompting import built_in
from looktwice.sources.queries import Queries
from looktwice.token_index.compare import kendall_tau
from looktwice.types import Item, VisualTokens

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # shapes of public models, and the builder of random checkpoints

SPECS = (
    "none", "int8", "rsq6", "rsq4", "rsq3", "rsq2", "pq2", "opq2", "pq4", "opq4", "pq8", "opq8", "pq16", "opq16",
    "opq32", "pool2", "pool2+opq8", "sample2+opq8", "group4+opq8", "cluster8+opq8",
)  # fmt: skip
COLUMNS = {
    "codec": 14,
    "bytes": 6,
    "error": 7,
    "tau": 6,
    "interval": 15,
    "mAP": 6,
    "change": 7,
    "within": 17,
    "decode": 7,
    "train": 6,
}


@dataclass(frozen=True)
class Pairs:
    """Image queries, each with its nearest images, all with visual tokens; and labels."""

    queries: Sequence[Item]
    near: Sequence[Sequence[Item]]
    qrels: Qrels


@dataclass(frozen=True)
class Scored:
    """p of each query's candidates [queries, depth], AP by query, and the CPU seconds it took."""

    p: Any
    ap: dict[str, float]
    seconds: float


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(1)
    scorer = random_scorer(args.random, args.layers) if args.random else load_scorer("tiny-vl", device="cpu")
    queries, images, qrels = scenes(args.scenes) if args.scenes else gallery()
    near = nearest(queries[: args.queries], images[: args.images], args.depth)
    seen = with_tokens(scorer, {item.id: item for items in (queries, images) for item in items})
    pairs = Pairs([seen[q.id] for q in queries[: args.queries]], [[seen[i] for i in ids] for ids in near], qrels)
    others = read(sorted(args.train.glob("*.jpg"))) if args.train else [seen[item.id] for item in images]
    sample = training_tokens(scorer, others, args.train_tokens)
    plain = score(scorer, pairs)
    print("  ".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
    rows = [measure_codec(scorer, *trained(spec, sample), pairs, plain) for spec in args.specs]
    about = {"model": args.random or "tiny-vl", "queries": len(near), "depth": args.depth}
    finish("frontier", args, {"rows": rows, **about, "training images": len(sample)})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which codecs keep the ranking.")
    parser.add_argument("--queries", type=int, help="ask only the first so many")
    parser.add_argument("--images", type=int, help="search only the first so many")
    parser.add_argument("--depth", type=int, default=50, help="candidates of each query")
    parser.add_argument("--scenes", type=Path, help="compose 500 scenes in this folder, unless they are there")
    parser.add_argument(
        "--train", type=Path, help="train codebooks on the images of this folder, not on those searched"
    )
    parser.add_argument("--train-tokens", type=int, default=MOST_TOKENS)
    parser.add_argument("--random", help="a public model by its name on the hub: its widths, with random weights")
    parser.add_argument("--layers", type=int, default=2, help="of its language model")
    parser.add_argument("--specs", nargs="*", default=SPECS)
    small = {"queries": 2, "images": 24, "depth": 4, "train_tokens": 600, "specs": ("int8", "opq16x4", "pool2")}
    return parse(parser, argv, **small)


def random_scorer(name: str, layers: int) -> Scorer:
    """Return the scorer of a model with a public one's widths, few layers and random weights."""
    from scripts.gpu.shapes import random_model

    with tempfile.TemporaryDirectory() as folder:
        model = random_model(name, Path(folder) / "model", "cpu", place("cpu").torch_dtype, False, layers)
    return scorer_of(model, built_in.get("object"))


def gallery() -> tuple[list[Item], list[Item], Qrels]:
    """Return image queries, images and labels of the bundled gallery."""
    folder = bundled_gallery()
    queries = [query for query in Queries(folder / "queries.jsonl") if query.image is not None]
    return queries, read(sorted((folder / "images").glob("*.jpg"))), read_qrels(folder / "qrels.txt")


def scenes(folder: Path) -> tuple[list[Item], list[Item], Qrels]:
    """Return the same of composed scenes."""
    made = build(folder, SMALL)
    queries = [query.load() for query in made.queries if query.source.has_image]
    return queries, read(sorted((folder / "scenes").glob("*.jpg"))), made.qrels


def read(paths: Iterable[Path]) -> list[Item]:
    return [Item(path.name, Image.open(path).convert("RGB")) for path in paths]


def nearest(queries: Sequence[Item], images: Sequence[Item], depth: int) -> list[list[str]]:
    """Return the ids of the `depth` nearest images to each query by tiny-clip."""
    encoder = load_encoder("tiny-clip", device="cpu")
    similar = encoder.encode(queries) @ encoder.encode(images).T
    return [[images[i].id for i in np.argsort(-row, kind="stable")[:depth]] for row in similar]


def with_tokens(scorer: Scorer, items: dict[str, Item]) -> dict[str, Item]:
    maker = scorer.tokens()
    assert maker is not None
    return {
        item.id: Item(item.id, tokens=tokens)
        for item, tokens in zip(items.values(), maker.visual_tokens([*items.values()]), strict=True)
    }


def training_tokens(scorer: Scorer, items: Sequence[Item], most: int) -> list[VisualTokens]:
    """Return the tokens of as many images as have `most` tokens."""
    sample: list[VisualTokens] = []
    for item in items:
        tokens = item.tokens or with_tokens(scorer, {item.id: item})[item.id].tokens
        if tokens is None or sum(len(one.features) for one in sample) >= most:
            break
        sample.append(tokens)
    return sample


def trained(spec: str, sample: Sequence[VisualTokens]) -> tuple[Codec, float]:
    """Return the codec, and the CPU seconds of training its codebook."""
    codec = parse_codec(spec)
    if not isinstance(codec.quantiser, PQ):
        return codec, 0.0
    rows = torch.cat([codec.reduce(tokens).values for tokens in sample], dim=1)
    start = time.process_time()
    book = train_codebook(codec.quantiser, rows)
    return codec.with_codebook(book), time.process_time() - start


def score(scorer: Scorer, pairs: Pairs) -> Scored:
    """Return p of all pairs, AP of every query's order by p, and CPU seconds."""
    start = time.process_time()
    p = [scorer.score(query, near).p for query, near in zip(pairs.queries, pairs.near, strict=True)]
    seconds = time.process_time() - start
    name = f"mAP@{len(pairs.near[0])}"
    run = {
        query.id: sorted(zip((item.id for item in near), map(float, row), strict=True), key=lambda hit: -hit[1])
        for query, near, row in zip(pairs.queries, pairs.near, p, strict=True)
    }
    found = measure(run, {query: pairs.qrels[query] for query in run}, [name])
    return Scored(np.array(p), dict(found.per_query[name]), seconds)


def measure_codec(scorer: Scorer, codec: Codec, train: float, pairs: Pairs, plain: Scored) -> dict[str, Any]:
    """Return a row of the table, and print it."""
    images = {item.id: item.tokens for items in (pairs.queries, *pairs.near) for item in items if item.tokens}
    data = {name: codec.encode(tokens) for name, tokens in images.items()}
    start = time.process_time()
    near = [decoded(codec, near, data) for near in pairs.near]
    seconds = time.process_time() - start
    found = score(scorer, Pairs(decoded(codec, pairs.queries, data), near, pairs.qrels))
    tau, low, high = interval([kendall_tau(a, b) for a, b in zip(plain.p, found.p, strict=True)])
    change, least, most = difference(found.ap, plain.ap)
    row = {"codec": str(codec), "bytes": round(float(np.mean([len(one) for one in data.values()]))), "tau": tau}
    row |= {
        "error": error(codec, images.values()),
        "interval": [low, high],
        "mAP": float(np.mean([*found.ap.values()])),
    }
    row |= {"change": change, "within": [least, most], "decode": seconds / plain.seconds, "train": train}
    print("  ".join(f"{show(row[name]):>{width}}" for name, width in COLUMNS.items()), flush=True)
    return row


def decoded(codec: Codec, items: Sequence[Item], data: dict[str, bytes]) -> list[Item]:
    layouts = [item.tokens.layout for item in items if item.tokens is not None]
    tokens = codec.decode_batch([data[item.id] for item in items], layouts)
    return [replace(item, tokens=one) for item, one in zip(items, tokens, strict=True)]


def error(codec: Codec, images: Iterable[VisualTokens]) -> float:
    """Return squared error over squared length, of every token against the vector that stands for it."""
    if codec.cells is not None:
        codec = replace(codec, cells=replace(codec.cells, replacement="replicate"))
    pairs = [(tokens.features.double(), codec.round_trip(tokens).features.double()) for tokens in images]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(a.square().sum() for a, _ in pairs))


def show(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(f'{one:.3f}' for one in value)}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
