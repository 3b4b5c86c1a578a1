"""What half precision buys and what it moves: float32 against bfloat16, alone against in a batch.

    python benchmarks/dtypes.py                      # a ViT-B/16 and the bundled models, on the CPU
    python benchmarks/dtypes.py --device cuda --threads 8

Three tables: images per second of a ViT-B/16 (random weights); how far vectors move (1 - cosine); how far p moves, and
for how many queries the order of the candidates changes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from _smoke import finish, parse
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from looktwice.encode import load_encoder
from looktwice.experiment.demo import bundled_gallery
from looktwice.score import load_scorer
from looktwice.sources import images
from looktwice.sources.queries import Queries
from looktwice.types import FloatArray, Item

DTYPES = ("float32", "bfloat16")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    items = gallery(args.items)
    parts = {"speed": list(speed(args)), "vectors": list(vectors(items, args)), "p": list(probabilities(items, args))}
    for name, rows in parts.items():
        print(f"\n{name}\n" + "  ".join(f"{key:>16}" for key in rows[0]))
        for row in rows:
            print("  ".join(f"{show(value):>16}" for value in row.values()))
    finish("dtypes", args, {**parts, "device": args.device, "threads": args.threads, "cpu": capabilities()})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="float32 against bfloat16, alone against in a batch.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=12, help="of the ViT-B/16")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--items", type=int, default=64, help="images of the bundled gallery")
    parser.add_argument("--queries", type=int, default=40)
    return parse(parser, argv, layers=1, repeat=1, items=4, queries=2)


def capabilities() -> list[str]:
    found = torch.cpu.get_capabilities()
    return sorted(name for name in ("amx_bf16", "avx512_bf16") if found.get(name))


def gallery(count: int) -> list[Item]:
    paths = sorted((bundled_gallery() / "images").glob("*.jpg"))[:count]
    return [Item(path.name, images.load(path.read_bytes())[0]) for path in paths]


def speed(args: argparse.Namespace) -> Any:
    """Images per second, both dtypes in turn; the best of `--repeat` runs."""
    shape = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 512}
    config = CLIPVisionConfig(**shape, num_hidden_layers=args.layers, image_size=224, patch_size=16)
    models = {dtype: tower(config, dtype, args.device) for dtype in DTYPES}
    for batch in (1, 16):
        best = dict.fromkeys(DTYPES, float("inf"))
        for _ in range(args.repeat + 1):  # the first run of each warms up
            for dtype, model in models.items():
                best[dtype] = min(best[dtype], seconds(model, batch))
        rates = {dtype: batch / best[dtype] for dtype in DTYPES}
        yield {"batch": batch, **rates, "ratio": rates["bfloat16"] / rates["float32"]}


def tower(config: CLIPVisionConfig, dtype: str, device: str) -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False).to(device, getattr(torch, dtype))


def seconds(model: Any, batch: int) -> float:
    pixels = torch.zeros(batch, 3, 224, 224, dtype=model.dtype, device=model.device)
    began = time.perf_counter()
    model(pixel_values=pixels).image_embeds.float().cpu()
    return time.perf_counter() - began


def vectors(items: list[Item], args: argparse.Namespace) -> Any:
    """The largest 1 - cosine between the same image's vectors, made in two ways."""
    rows: dict[str, FloatArray] = {}
    for dtype in DTYPES:
        for batch in (1, 16):
            encoder = load_encoder("tiny-clip", device=args.device, dtype=dtype, batch_size=batch)
            rows[f"{dtype}/{batch}"] = encoder.encode(items).astype(np.float64)
    for one, other in combinations(rows, 2):
        yield {"dtype/batch": one, "dtype/batch ": other, "1 - cos": float(1 - (rows[one] * rows[other]).sum(1).min())}


def probabilities(items: list[Item], args: argparse.Namespace) -> Any:
    """The largest difference of p, and queries whose candidates change places."""
    queries = [query for query in Queries(bundled_gallery() / "queries.jsonl") if query.image][: args.queries]
    found: dict[str, FloatArray] = {}
    for dtype in DTYPES:
        for batch in (1, 64):
            scorer = load_scorer("tiny-vl", device=args.device, dtype=dtype, batch_size=batch)
            found[f"{dtype}/{batch}"] = np.stack([scorer.score(query, items).p for query in queries])
    for one, other in combinations(found, 2):
        a, b = found[one], found[other]
        changed = sum(
            (np.argsort(-x, kind="stable") != np.argsort(-y, kind="stable")).any() for x, y in zip(a, b, strict=True)
        )
        first = int((a.argmax(1) != b.argmax(1)).sum())
        row = {"dtype/batch": one, "dtype/batch ": other, "largest": float(np.abs(a - b).max())}
        yield {**row, "queries": len(queries), "reordered": int(changed), "other first": first}


def show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
