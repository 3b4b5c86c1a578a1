"""Both paths on the tiny random model of every family: how far apart their logits are, and how fast each is.

    OMP_NUM_THREADS=1 python tests/parity/paths.py [FAMILY …]

Prints a table; its seconds are processor time of one thread, the best of three runs. Pictures go through the vision
tower on both paths; the fast one is asked about 35 candidates of one query at once.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

# ruff: noqa: E402  # the tests' own modules are found by the lines above
import tiny_models
import torch
from conftest import SIZES
from fakes import smooth_noise

from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm, scorer
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.types import Item

EACH = 5
QUERY = Item("q", image=smooth_noise(77, 123))
CANDIDATES = [
    Item(f"c{i}-{n}", image=smooth_noise(*size, i + 10 * n)) for n in range(EACH) for i, size in enumerate(SIZES)
]


def seconds(path: str, model: Mllm) -> float:
    """The least processor time of three runs over all candidates, by a scorer that remembers nothing."""
    found = []
    for _ in range(3):
        judge = scorer(model, built_in.get("object"), path=path, cache_bytes=0)  # type: ignore[arg-type]
        start = time.process_time()
        judge.score(QUERY, CANDIDATES)
        found.append(time.process_time() - start)
    return min(found)


def furthest(model: Mllm) -> float:
    """The largest difference between logits of the two paths, over the whole vocabulary."""
    slow, apart = ReferenceScorer(model, built_in.get("object")), 0.0
    for which, logits in scorer(model, built_in.get("object"), path="fast").logits(QUERY, CANDIDATES[: len(SIZES)]):
        expected = torch.stack([slow.logits(QUERY, CANDIDATES[i]) for i in which])
        apart = max(apart, float((logits - expected).abs().max()))
    return apart


def main(families: list[str]) -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print("| family | largest Δ of a logit | fast, pairs/s | reference, pairs/s | ratio |\n|---|---|---|---|---|")
    for family in families or tiny_models.MLLMS:
        with TemporaryDirectory() as folder:
            tiny_models.build(family, Path(folder))
            model = load_mllm(checkpoints.resolve(folder), place("cpu", "float32"))
        fast, slow = (len(CANDIDATES) / seconds(path, model) for path in ("fast", "reference"))
        print(f"| {family} | {furthest(model):.1e} | {fast:.0f} | {slow:.0f} | {fast / slow:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
