"""Make checkpoints to train the shipped weights further from.

    python training/tiny/further.py --data DATA --models src/looktwice/assets/tiny --out DATA/further

Each teacher is fitted in a space of its own. So it is turned: texts come to lie where the shipped tiny-clip has them.
The shipped weights lack the small heads that only training uses. So these are fitted with all else frozen. Writes
OUT/teacher.pt for `--teacher`, and OUT/vl and OUT/clip, each with an init.pt for `--init` and what else a training
reads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import train_clip
from architecture import IMAGE, make_model
from batches import make_batch
from network import TinyVL
from objectives import losses, weights
from safetensors.torch import load_file
from scenes import Sprites
from teacher import Teacher
from torch import Tensor, nn
from transformers import AutoProcessor

SEED, CASES, ASKED = 99, 16, 4


def tiny_vl(shipped: Path, out: Path) -> TinyVL:
    processor = AutoProcessor.from_pretrained(shipped)
    processor.save_pretrained(out / "processor")
    processor.tokenizer.save_pretrained(out / "tokenizer")
    model = make_model(processor.tokenizer, SEED)
    fill(model, shipped)
    model.tie_weights()
    return TinyVL(model, processor.tokenizer)


def tiny_clip(shipped: Path, out: Path) -> train_clip.TinyClip:
    processor = AutoProcessor.from_pretrained(shipped)
    processor.save_pretrained(out / "processor")
    model = train_clip.make_model(processor.tokenizer, SEED)
    fill(model, shipped)
    return train_clip.TinyClip(model, processor.tokenizer)


def fill(model: nn.Module, shipped: Path) -> None:
    """Load shipped weights; the output layer is not in the file, because it is the input layer."""
    given = {name: value.float() for name, value in load_file(shipped / "model.safetensors").items()}
    missing, unknown = model.load_state_dict(given, strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:
        raise SystemExit(
            f"{shipped} has another architecture ({[*unknown, *missing][0]}); use the recipe that made it."
        )


@torch.no_grad()
def turn(teacher: Teacher, clip: train_clip.TinyClip, texts: int) -> Tensor:
    """[WIDTH, WIDTH] The rotation that brings the teacher's texts nearest to the encoder's (orthogonal Procrustes)."""
    phrases = teacher.phrases(texts, Random(SEED))
    heard = torch.cat([clip.words(phrases[at : at + 500]) for at in range(0, texts, 500)])
    left, _, right = torch.linalg.svd(teacher.texts(phrases).T @ heard)
    return left @ right


def turned(saved: dict[str, Any], rotation: Tensor) -> dict[str, Any]:
    """The teacher's file in the other space: both last layers and the drawings."""
    bridge = dict(saved["bridge"])
    for name in ("picture.1", "text.3"):
        bridge[f"{name}.weight"] = rotation.T @ bridge[f"{name}.weight"]
        bridge[f"{name}.bias"] = rotation.T @ bridge[f"{name}.bias"]
    return {"bridge": bridge, "drawings": saved["drawings"] @ rotation}


def fit_heads(net: nn.Module, parts_of: Callable[[int], dict[str, Tensor]], steps: int) -> None:
    """Train what is not shipped by the sum of its losses; the rest stays as it is."""
    heads = [p for name, p in net.named_parameters() if not name.startswith("model.")]
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    for head in heads:
        head.requires_grad_(True)
    optimiser = torch.optim.AdamW(heads, weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 10) * (1 - step / steps) + 1e-5
        parts = {name: value for name, value in parts_of(step).items() if value.requires_grad}
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
        if step % 10 == 9:
            print(step + 1, {name: round(value.item(), 3) for name, value in parts.items()}, flush=True)


def looks(net: TinyVL, teacher: Teacher, sprites: Sprites, step: int) -> dict[str, Tensor]:
    """tiny-vl's losses, each with its weight."""
    batch, weigh = make_batch(sprites, CASES, IMAGE, 1.0, 0.05, SEED, step), weights(ASKED, frozen=False)
    parts = losses(net, teacher, batch, ASKED, 0.6, SEED, step, frozen=True)
    return {name: weigh[name] * value for name, value in parts.items() if name in weigh}


def encodes(net: train_clip.TinyClip, teacher: Teacher, sprites: Sprites, step: int) -> dict[str, Tensor]:
    """tiny-clip's losses, which hold their weights already."""
    return train_clip.losses(net, teacher, make_batch(sprites, CASES, IMAGE, 1.0, 0.1, SEED, step), Random(step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="the folder with tiny-vl and tiny-clip")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--texts", type=int, default=6000, help="by which the teacher's space is turned")
    args = parser.parse_args()
    torch.set_num_threads(1)
    vl = tiny_vl(args.models / "tiny-vl", args.out / "vl")
    clip = tiny_clip(args.models / "tiny-clip", args.out / "clip")
    rotation, fitted = turn(Teacher(args.data), clip.eval(), args.texts), args.out / "teacher.pt"
    torch.save(turned(torch.load(args.data / "teacher.pt", weights_only=True), rotation), fitted)
    teacher, sprites = Teacher(args.data, fitted), Sprites(args.data, "train")
    for name, net, parts_of in (("vl", vl, looks), ("clip", clip, encodes)):
        since = time.time()
        fit_heads(net.train(), partial(parts_of, net, teacher, sprites), args.steps)
        torch.save({"net": net.state_dict(), "step": 0}, args.out / name / "init.pt")
        print(f"{name}: {args.steps} steps in {time.time() - since:.0f} s")


if __name__ == "__main__":
    main()
