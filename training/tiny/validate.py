"""Measure a checkpoint of train.py on validation objects: the figures of the curve in docs/lab/models.md.

    python training/tiny/validate.py --data DATA --checkpoint RUN/last.pt --tokenizer RUN/tokenizer

AUC of telling the scene that shows a portrait's drawing (or, for words, its name) from two others of the batch, one
large object and clutter: answers to the built-in prompts, and the plain likeness of visual tokens beside them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from architecture import IMAGE, make_model
from batches import Batch, Pair, make_batch
from evaluate import auc
from network import TinyVL, pictures_in_order, render
from scenes import Sprites
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from wordings import answer

from looktwice.score.prompting.built_in import PROMPTS, Prompt

CASES, SEED = 16, 999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=10, help="of 16 portraits and scenes, for each row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sprites = Sprites(args.data, "validation")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.tokenizer)
    net = TinyVL(make_model(tokenizer, 0), tokenizer).eval()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    print(f"step {state['step']}")
    for name, hard in (("large", 0.0), ("clutter", 0.9)):
        scores: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
        for step in range(args.batches):
            with torch.no_grad():
                measure(net, make_batch(sprites, CASES, IMAGE, hard, 0.0, SEED, step, hands=False), step, scores)
        print(name, {what: round(auc(*both), 3) for what, both in scores.items()})


def measure(net: TinyVL, batch: Batch, step: int, scores: dict[str, tuple[list[float], list[float]]]) -> None:
    """Add (positive, negative) scores of every way of telling."""
    tokens = net.look(batch.pictures)
    voice = net.read([p.placed[0].sprite.label for p in batch.portraits])
    ways = {
        "late interaction": net.likeness(tokens[:CASES], tokens[CASES:]),
        "names of tokens": torch.einsum("nd,mtd->nmt", voice, net.meaning(tokens[CASES:])).amax(-1),
    }
    chosen = list(cells(batch, step))
    for name, likeness in ways.items():
        for i, j in chosen:
            scores[name][i != j].append(float(likeness[i, j]))
    for name in ("object", "match-query-first"):
        for (i, j), margin in zip(chosen, margins(net, PROMPTS[name], batch, tokens, chosen), strict=True):
            scores[name][i != j].append(float(margin))


def cells(batch: Batch, step: int) -> Iterator[tuple[int, int]]:
    """(portrait, scene): its own, and two others that do not show anything of that name."""
    for i in range(CASES):
        yield i, i
        yield from ((i, j) for j in ((i + 1 + step) % CASES, (i + 5 + step) % CASES)
                    if j != i and not batch.same_object[i, j])  # fmt: skip


def margins(net: TinyVL, prompt: Prompt, batch: Batch, tokens: Tensor, chosen: list[tuple[int, int]]) -> Tensor:
    """Logit of the positive answer's first token less that of the negative one's, [pairs]."""
    shown = "query.image" in prompt.parts
    pairs = [Pair(prompt, i if shown else None, CASES + j,
                  None if shown else batch.portraits[i].placed[0].sprite.label, None, answer(prompt, i == j))
             for i, j in chosen]  # fmt: skip
    states, last = net._run([net.tokenizer.encode(render(p)) for p in pairs], [*map(pictures_in_order, pairs)], tokens)
    logits = net.model.lm_head(states[torch.arange(len(pairs)), last])
    yes, no = (net.tokenizer.encode(answer(prompt, right))[0] for right in (True, False))
    return logits[:, yes] - logits[:, no]


if __name__ == "__main__":
    main()
