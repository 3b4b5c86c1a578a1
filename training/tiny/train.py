"""Train tiny-vl. Resumable: run the same command again and it goes on from the last checkpoint.

    python training/tiny/train.py --data DATA --out RUN [--steps 3000] [--look 480] [--joint 780] [--workers 2]

Scenes are composed, so it is known which visual tokens show which object. Three stages:
1. sight alone (until --look): which tokens are figure and which ground; regions of the same drawing alike, all others
   not; regions near their names; portraits near the scenes that show them by late interaction (mean over query tokens
   of the best likeness to a scene token);
2. questions, with sight frozen (until --joint): answers, and where each token ought to look (`guide.py`);
3. everything together, half of it with the long built-in prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from architecture import IMAGE, corpus, make_model, make_processor, name_words, train_tokenizer, whiten_patches
from batches import make_batch
from lend import lend
from muon import Muon
from network import TinyVL, quieten
from objectives import losses, weights
from scenes import Sprites
from teacher import Teacher, Words
from torch import nn
from transformers import PreTrainedTokenizerFast


def curriculum(step: int, args: argparse.Namespace) -> tuple[float, float, float]:
    """(how cluttered, share of plain grounds, share of the long built-in prompts); both stages start easy."""
    if step < args.look:
        return min(1.0, 0.9 * step / args.look), max(0.1, 0.9 - 0.8 * step / args.look), 0.0
    if step < args.joint:
        asked = (step - args.look) / (args.joint - args.look)
        return 0.3 + 0.7 * asked, 0.1, 0.1
    return 1.0, 0.05, 0.6


def stage_start(step: int, args: argparse.Namespace) -> int:
    return args.joint if step >= args.joint else args.look if step >= args.look else 0


def begin_stage(net: TinyVL, sprites: Sprites, step: int, args: argparse.Namespace) -> None:
    if step == args.look:
        quieten(net, make_batch(sprites, 16, IMAGE, 0.5, 0.3, args.seed, 0).pictures)
    if step == args.joint:
        lend(net, sprites, IMAGE, args.seed)


def rate(step: int, steps: int, peak: float, since: int | None = None) -> float:
    """Warm up over 60 steps since the stage began, under a cosine down to 2 %."""
    warm = min(1.0, ((step if since is None else since) + 1) / 60)
    return peak * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def optimisers(net: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else. Sight apart from the rest, because it moves more
    slowly once questions depend on it; no decay on vectors."""
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        sight, inner = ".vision_model." in name or ".connector." in name, ".layers." in name and parameter.ndim == 2
        groups.setdefault((inner, sight, parameter.ndim > 1), []).append(parameter)
    made: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for (inner, sight, matrix), some in groups.items():
        made[inner].append({"params": some, "weight_decay": 0.05 * matrix, "sight": sight})
    return [Muon(made[True]), torch.optim.AdamW(made[False], betas=(0.9, 0.98))]


def share_gradients(net: nn.Module) -> None:
    flat = torch.cat([p.grad.reshape(-1) if p.grad is not None else torch.zeros(p.numel()) for p in net.parameters()])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for p in net.parameters():
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def save(out: Path, net: nn.Module, made: list[torch.optim.Optimizer], step: int) -> None:
    state = {"net": net.state_dict(), "optimisers": [o.state_dict() for o in made], "step": step}
    torch.save(state, out / "last.tmp")
    (out / "last.tmp").rename(out / "last.pt")


def end_with_parent() -> None:
    """End this worker when the process that began it is gone, whatever it waits for: the other workers end, too."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        assert parent is not None
        parent.join()
        print("The process that began this training is gone; the same command goes on.", file=sys.stderr, flush=True)
        os._exit(1)

    if parent is not None:
        Thread(target=watch, daemon=True).start()


def worker(rank: int, args: argparse.Namespace, port: int = 0) -> None:
    end_with_parent()
    torch.set_num_threads(args.threads)
    args.cases, args.ask = args.cases // args.workers, args.ask // args.workers
    if args.workers > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=args.workers)
    out, sprites, teacher = Path(args.out), Sprites(Path(args.data), "train"), Teacher(Path(args.data), args.teacher)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    model = make_model(tokenizer, args.seed)
    whiten_patches(model, make_batch(sprites, 64, IMAGE, 0.5, 0.3, args.seed, 0).pictures)
    name_words(model.get_input_embeddings().weight, tokenizer, teacher, norm=0.8)
    net = TinyVL(model, tokenizer).to(args.device).train()
    made, start = optimisers(net), 0
    if args.init and not (out / "last.pt").exists():
        net.load_state_dict(torch.load(args.init, map_location=args.device, weights_only=True)["net"])
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", map_location=args.device, weights_only=True)
        net.load_state_dict(state["net"])
        for optimiser, saved in zip(made, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        start = state["step"]
    seed, since, window = args.seed * 100 + rank, time.time(), {}
    for step in range(start, args.until or args.steps):
        if step and step in (args.look, args.joint):
            begin_stage(net, sprites, step, args)
            made = optimisers(net)  # another task: momentum starts from nothing
        frozen = args.look <= step < args.joint
        ask = args.ask if frozen or (step >= args.look and step % args.every == 0) else 0
        hard, plain, long = curriculum(step, args)
        batch = make_batch(sprites, args.ask if frozen else args.cases, IMAGE, hard, plain, seed, step)
        parts = losses(net, teacher, batch, ask, long, seed, step, frozen)
        loss = sum(weights(ask, frozen)[name] * value for name, value in parts.items() if name != "right")
        net.zero_grad()
        loss.backward()
        if args.workers > 1:
            share_gradients(net)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimiser in made:
            for group in optimiser.param_groups:
                slow = 0.6 if group["sight"] and step >= args.joint else 1.0
                group["lr"] = slow * rate(step, args.steps, args.lr, since=step - stage_start(step, args))
            optimiser.step()
        for key, value in parts.items():
            window[key] = window.get(key, 0.0) + value.item()
        if rank == 0 and (step + 1) % 10 == 0:
            line = {"step": step + 1, "seconds_per_step": round((time.time() - since) / 10, 3)}
            line |= {k: round(v / 10, 4) for k, v in window.items()}
            since, window = time.time(), {}
            with (out / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(line) + "\n")
        if rank == 0 and (step + 1) % 60 == 0:
            save(out, net, made, step + 1)
    if rank == 0:
        save(out, net, made, max(start, args.until or args.steps))


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--until", type=int, help="stop after this step; the same command without it goes on")
    parser.add_argument("--look", type=int, default=480, help="steps that train sight alone")
    parser.add_argument(
        "--joint", type=int, default=780, help="until this step sight rests while the questions are learnt"
    )
    parser.add_argument("--cases", type=int, default=32, help="objects of a step, in a portrait and a scene")
    parser.add_argument("--ask", type=int, default=16, help="of them, how many are asked about")
    parser.add_argument("--every", type=int, default=1, help="ask in every such step; the others train sight and names")
    parser.add_argument("--teacher", type=Path, help="another teacher than DATA/teacher.pt")
    parser.add_argument("--init", help="start from the weights of this checkpoint")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1, help="processes that share the cases of each step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.ask > args.cases:
        parser.error("--ask is more than --cases; ask about as many as there are, or fewer")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer").exists():
        tokenizer = train_tokenizer(corpus(Path(args.data)), Words(Path(args.data)).all)
        make_processor(tokenizer).save_pretrained(out / "processor")
        tokenizer.save_pretrained(out / "tokenizer")
    if args.workers == 1:
        worker(0, args)
    else:
        torch.multiprocessing.spawn(worker, args=(args, free_port()), nprocs=args.workers)


if __name__ == "__main__":
    main()
