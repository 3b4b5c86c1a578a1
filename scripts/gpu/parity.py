"""Whether a pair's score depends on the pairs beside it, for every fast family, in float32 and bfloat16.

Tiny random models of every family (weights of standard deviation 0.2, so that logits spread), the same pairs alone and
in a batch of 64, on the fast path and on the reference path.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from PIL import Image
from torch import Tensor

from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm, scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.types import Item
from scripts.gpu.record import Options

SIZES = [(50, 70), (90, 60), (33, 200), (64, 64), (150, 31), (28, 28), (120, 97)]
BATCH = 64
FLOAT32 = {"cpu": 1e-4, "cuda": 1e-3}
"""Largest difference of a logit in float32, between alone and in a batch and between fast and reference path."""
BFLOAT16 = 2.0
"""In bfloat16 a batch may move p by so many times what bfloat16 itself moves it by, against float32 (at worst)."""
P_FLOOR = 0.005
"""A change of p below which nothing is said against it."""


def run(options: Options, tell: Callable[[Mapping[str, Any]], None]) -> None:
    """Tell one row for each family and dtype."""
    exact_products()
    with tempfile.TemporaryDirectory() as folder:
        for family in tiny_models.MLLMS:
            where = tiny_models.build(family, Path(folder) / family)
            exact: np.ndarray | None = None
            for dtype in ("float32", "bfloat16"):
                if time.time() > options.until:
                    tell({"family": family, "dtype": dtype, "skipped": "no time was left"})
                    continue
                begun = time.time()
                row, exact = measured(where, options.device, dtype, exact)
                tell({"family": family, "dtype": dtype, **row, "seconds": round(time.time() - begun, 2)})


def exact_products() -> None:
    """Have CUDA multiply float32 as float32; its convolutions take TF32 unless told."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def measured(
    folder: Path, device: str, dtype: str, exact: np.ndarray | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """A row, and p of the pairs alone in float32; `exact` is that of an earlier row."""
    model = load_mllm(checkpoints.resolve(str(folder)), place(device, dtype))
    fast = scorer(model, built_in.get("object"))
    if not isinstance(fast, Engine):
        return {"path": "reference", "ok": True}, None
    query, candidates = pairs()
    many = [replace(candidates[i % len(candidates)], id=f"m{i}") for i in range(BATCH)]
    together, alone = logits(fast, query, many)[: len(candidates)], one_by_one(model, query, candidates)
    slow = ReferenceScorer(model, built_in.get("object"))
    reference = torch.stack([slow.logits(query, one) for one in candidates])
    p = [fast.read(some, fast.labels).p for some in (together, alone, reference.cpu())]
    row = {
        "path": "fast",
        "logits_std": float(alone.std()),
        "alone_batch_logit": gap(alone, together),
        "fast_reference_logit": gap(alone, reference.cpu()),
        "alone_batch_p": float(np.abs(p[1] - p[0]).max()),
        "fast_reference_p": float(np.abs(p[1] - p[2]).max()),
        "same_order": np.argsort(-p[0]).tolist() == np.argsort(-p[1]).tolist(),
    }
    if dtype == "float32":
        limit = FLOAT32[torch.device(device).type]
        row |= {"limit_logit": limit, "ok": max(row["alone_batch_logit"], row["fast_reference_logit"]) <= limit}
        return row, p[1]
    own = float(np.abs(p[1] - exact).max()) if exact is not None else 0.0
    limit = max(P_FLOOR, BFLOAT16 * own)
    row |= {"bfloat16_float32_p": own, "limit_p": limit, "ok": row["alone_batch_p"] <= limit}
    return row, exact


def pairs() -> tuple[Item, list[Item]]:
    """A query, and candidates of odd sizes and mixed shapes."""
    return Item("q", image=picture(77, 123, 0)), [Item(f"c{i}", image=picture(*s, i)) for i, s in enumerate(SIZES)]


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth noise: every patch differs, and scaling does not wash it out."""
    rng = np.random.default_rng([seed, width, height])
    coarse = Image.fromarray(rng.integers(0, 255, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def one_by_one(model: Mllm, query: Item, candidates: Sequence[Item]) -> Tensor:
    single = scorer(model, built_in.get("object"), batch_size=1)
    assert isinstance(single, Engine)
    return torch.cat([logits(single, query, [one]) for one in candidates])


def logits(fast: Engine, query: Item, candidates: Sequence[Item]) -> Tensor:
    """Next-token logits [n, V] on the CPU; a candidate that was left out is an error."""
    out = torch.full((len(candidates), fast.mllm.model.config.get_text_config().vocab_size), torch.nan)
    for rows, found in fast.logits(query, candidates):
        out[rows] = found.cpu()
    assert not out.isnan().any(), "a candidate was left out"
    return out


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
