"""Pairs per second of the second look at real shapes, and which share of the card's own matmul peak that is.

k candidates for one query: from stored tokens, from stored tokens pooled 2 × 2, from pixels; and the reference path on
a few. FLOP are those of docs/explanation/performance.md; the peak is measured in the same process.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from looktwice.estimate.cost import Text, pair_cost
from looktwice.estimate.shapes import Shape, load_config, patches, shape
from looktwice.score.load import scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.types import Block, Item, VisualTokens
from scripts.gpu.clock import peak, seconds
from scripts.gpu.parity import picture
from scripts.gpu.record import Options
from scripts.gpu.shapes import MODELS, SIDE, random_model

K, SLOW = 100, 4
DTYPE = torch.bfloat16
Tell = Callable[[Mapping[str, Any]], None]


def run(options: Options, tell: Tell) -> None:
    """Tell the peak, then one row for each model and kind of candidate."""
    best = peak(options.device, DTYPE, options.smoke)
    tell({"model": None, "matmul_tflops": best / 1e12, "dtype": "bfloat16"})
    for name in MODELS:
        if time.time() > options.until:
            tell({"model": name, "skipped": "no time was left"})
            continue
        with tempfile.TemporaryDirectory() as folder:
            begun = time.time()
            model = random_model(name, Path(folder) / "m", options.device, DTYPE, options.smoke)
            tell({"model": name, "loaded_s": time.time() - begun, "parameters": count(model)})
            measure(model, best, options, tell)
            del model
            if options.device.startswith("cuda"):
                torch.cuda.empty_cache()


def count(model: Mllm) -> int:
    return sum(parameter.numel() for parameter in model.model.parameters())


def measure(model: Mllm, best: float, options: Options, tell: Tell) -> None:
    """Tell how fast each kind of candidate is; one that fails or has no time left leaves the others alone."""
    fast = scorer(model, built_in.get("object"), path="fast", cache_bytes=0)
    assert isinstance(fast, Engine)
    sizes = shape(load_config(model.model.config.to_dict()))
    side = 96 if options.smoke else SIDE[sizes.family]
    k = 3 if options.smoke else K
    grid = side // (sizes.patch * sizes.merge)
    shown = [Item(f"c{i}", image=picture(side, side, i)) for i in range(k + 1)]
    query, pixels = shown[0], shown[1:]
    stored = [tokens(f"c{i}", grid, grid, sizes, options.device, i) for i in range(k)]
    pooled = [tokens(f"c{i}", -(-grid // 2), -(-grid // 2), sizes, options.device, i, grid) for i in range(k)]
    costs = flop(fast, query, pixels[0], sizes, k)
    for kind, candidates in (("stored", stored), ("pooled", pooled), ("pixels", pixels)):
        attempt(tell, fast, kind, query, candidates, costs[kind], best, options)
    slow = ReferenceScorer(model, built_in.get("object"))
    attempt(tell, slow, "reference", query, pixels[:SLOW], costs["reference"], best, options)


def attempt(
    tell: Tell,
    asked: Engine | ReferenceScorer,
    kind: str,
    query: Item,
    candidates: Sequence[Item],
    cost: float,
    best: float,
    options: Options,
) -> None:
    """Time one kind of candidate and tell its row."""
    row: dict[str, Any] = {"model": asked.mllm.name, "candidates": kind, "k": len(candidates)}
    if time.time() > options.until:
        tell({**row, "skipped": "no time was left"})
        return
    try:
        row |= timed(asked, query, candidates, cost, best, options.device)
        if isinstance(asked, Engine) and kind == "stored":
            row["alone_batch_p"] = dependence(asked, query, candidates)
    except Exception as error:  # the next kind may still fit into memory
        row["error"] = f"{type(error).__name__}: {error}"[:500]
    tell(row)


def timed(
    asked: Engine | ReferenceScorer, query: Item, candidates: Sequence[Item], cost: float, best: float, device: str
) -> dict[str, Any]:
    def score() -> None:
        assert set(asked.score(query, candidates).status) == {"ok"}

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    rate = len(candidates) / seconds(score, device, repeats=3, warm=1)
    return {
        "pairs_s": rate,
        "tflop_pair": cost / 1e12,
        "of_peak": rate * cost / best,
        "memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None,
    }


def dependence(fast: Engine, query: Item, candidates: Sequence[Item], some: int = 4) -> float:
    """Largest change of p between a candidate alone and among all the others."""
    together = fast.score(query, candidates).p[:some]
    alone = np.concatenate([fast.score(query, [one]).p for one in candidates[:some]])
    return float(np.abs(together - alone).max())


def tokens(name: str, h: int, w: int, sizes: Shape, device: str, seed: int, grid: int | None = None) -> Item:
    """A candidate with random stored tokens; `grid` is the side that they were pooled from."""
    dice = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=dice, device=device, dtype=DTYPE) * 0.05

    block = Block("global", h, w) if grid is None else Block("global", h, w, stride=2, grid=(grid, grid))
    levels = draw(sizes.levels, h * w, sizes.width) if sizes.levels else None
    return Item(name, tokens=VisualTokens(draw(h * w, sizes.width), levels, (block,)))


def flop(fast: Engine, query: Item, candidate: Item, sizes: Shape, k: int) -> dict[str, float]:
    """FLOP of a pair, by kind of candidate, with the prompt's real numbers of tokens."""
    own, other = (seen.layout for seen in fast.visual_tokens([query, candidate]))
    pieces = fast.prompt.lay_out(query, candidate, fast.clean)
    row = fast.family.expand_placeholders(fast.encode(pieces), [own, other])
    visual = int(row.visual.sum()) // 2
    before, begins = row.starts
    text = Text(before, begins - before - visual, len(row.ids) - begins - visual)
    views, small = patches(sizes, other), -((-int(visual**0.5) // 2) ** 2)
    whole = pair_cost(sizes, visual, visual, views, text, k)
    pooled = pair_cost(sizes, visual, small, views, text, k)
    tower = sum(map(sizes.tower, views))
    return {
        "stored": whole.prefix_kv,
        "pooled": pooled.prefix_kv,
        "pixels": whole.prefix_kv + tower,
        "reference": 2 * tower + sizes.forward(len(row.ids)) + sizes.head(),
    }
