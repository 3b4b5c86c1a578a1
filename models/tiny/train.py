"""Train tiny-vl. Resumable: run the same command again and it goes on from the last checkpoint.

    python models/tiny/train.py --data DATA --out RUN [--steps 3000] [--look 480] [--joint 780] [--workers 2]

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
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from architecture import ONE_IMAGE, corpus, make_model, make_processor, train_tokenizer, whiten_patches
from batches import Batch, Pair, Regions, make_batch, make_pairs
from guide import guidance
from muon import Muon
from scenes import Sprites
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

TEMPERATURE = 1 / 14


class TinyVL(nn.Module):
    """The shipped model plus three small heads that only training uses."""

    def __init__(self, model: Idefics3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        width = model.config.text_config.hidden_size
        self.weigh = nn.Linear(width, 1)
        self.speak = nn.Linear(width, width)
        self.find = nn.Linear(width, 1)
        self.image_id = model.config.image_token_id

    def look(self, pictures: Tensor) -> Tensor:
        """[n, 3, s, s] -> visual tokens [n, 16, d]."""
        vision = self.model.model.vision_model
        side = pictures.shape[-1] // vision.patch_size
        mask = torch.ones(len(pictures), side, side, dtype=torch.bool, device=pictures.device)
        return self.model.model.connector(vision(pixel_values=pictures, patch_attention_mask=mask).last_hidden_state)

    def likeness(self, query: Tensor, scene: Tensor) -> Tensor:
        """[n, t, d] × [m, t, d] -> [n, m]; each query token finds its best scene token, weighed by a learned
        importance."""
        q, s = F.normalize(query, dim=-1), F.normalize(scene, dim=-1)
        best = torch.einsum("ntd,mud->nmtu", q, s).amax(-1)
        return torch.einsum("nmt,nt->nm", best, self.weigh(query).squeeze(-1).softmax(-1))

    def objects(self, tokens: Tensor, regions: Regions) -> Tensor:
        """Unit vectors [r, d] of regions: the mean of their tokens, weighed by how much of each they fill."""
        cover = regions.cover.to(tokens.device)
        return F.normalize(torch.einsum("rt,rtd->rd", cover, tokens[regions.picture.to(tokens.device)]), dim=-1)

    def read(self, texts: list[str]) -> Tensor:
        """Unit vectors [n, d] of captions: the language model's last state."""
        ids = [self.tokenizer.encode(" " + t) for t in texts]
        states, last = self._run(ids, None, None)
        return F.normalize(self.speak(states[torch.arange(len(ids)), last]), dim=-1)

    def answers(self, pairs: list[Pair], tokens: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """(mean cross-entropy of the answers, losses of pointing and looking, first-token correctness [pairs])."""
        ids, spans, rows = [], [], []
        for pair in pairs:
            head, reply = self.tokenizer.encode(render(pair)), self.tokenizer.encode(pair.answer)
            if len(reply) > 1:  # a written number has to end
                reply = [*reply, self.tokenizer.eos_token_id]
            ids.append(head + reply[:-1])
            spans.append((len(head) - 1, reply))
            rows.append(pictures_in_order(pair))
        states, _ = self._run(ids, rows, tokens)
        guided = guidance(self.model.model.text_model, self.hidden, pairs, ids, self.image_id)
        guided |= self._pointing(pairs, ids)
        where = [(i, start + k) for i, (start, reply) in enumerate(spans) for k in range(len(reply))]
        goal = torch.tensor([t for _, reply in spans for t in reply], device=states.device)
        logits = self.model.lm_head(states[[i for i, _ in where], [k for _, k in where]])
        first = torch.tensor([k == spans[i][0] for i, k in where], device=states.device)
        return F.cross_entropy(logits, goal), guided, (logits.argmax(-1) == goal)[first]

    def _pointing(self, pairs: list[Pair], ids: list[list[int]]) -> dict[str, Tensor]:
        """Where in the candidate is it? Read one layer below the last, so that the answer can be drawn from it."""
        rows = [i for i, pair in enumerate(pairs) if pair.find is not None]
        if not rows:
            return {}
        at = [[k for k, t in enumerate(ids[i]) if t == self.image_id][-len(pairs[i].find) :] for i in rows]  # type: ignore[arg-type]
        states = self.hidden[-2][torch.tensor(rows)[:, None], torch.tensor(at)]
        goal = torch.stack([pairs[i].find for i in rows]).to(states.device)  # type: ignore[misc]
        weight = torch.tensor(3.0, device=states.device)
        return {"point": F.binary_cross_entropy_with_logits(self.find(states).squeeze(-1), goal, pos_weight=weight)}

    def _run(
        self, ids: list[list[int]], rows: list[list[int]] | None, tokens: Tensor | None
    ) -> tuple[Tensor, list[int]]:
        device = self.weigh.weight.device
        longest = max(map(len, ids))
        padded = torch.tensor([i + [0] * (longest - len(i)) for i in ids], device=device)
        text = self.model.model.text_model
        embeds = text.embed_tokens(padded)
        if rows is not None and tokens is not None:
            wanted = torch.tensor([r for row in rows for r in row], device=device)
            embeds = embeds.masked_scatter((padded == self.image_id).unsqueeze(-1), tokens[wanted])
        # right-padded and causal: what stands after the last real token cannot reach it, so no mask is needed
        out = text(inputs_embeds=embeds, use_cache=False, output_hidden_states=True)
        states, self.hidden = out.last_hidden_state, out.hidden_states
        return states, [len(i) - 1 for i in ids]


def pictures_in_order(pair: Pair) -> list[int]:
    rows = {"query": pair.query, "candidate": pair.candidate}
    return [
        row
        for piece in pair.prompt.lay_out(*pair.items())
        if piece.text is None and (row := rows[str(piece.side)]) is not None
    ]


def render(pair: Pair) -> str:
    """The very string that the processor makes of this conversation."""
    body = "".join(ONE_IMAGE if p.text is None else p.text for p in pair.prompt.lay_out(*pair.items()))
    return f"<|im_start|>User:{body}<end_of_utterance>\nAssistant:"


@torch.no_grad()
def quieten(net: TinyVL, pictures: Tensor) -> None:
    """Scale visual tokens to a mean norm of 3. Sight's losses ignore length; long ones drown what layers add."""
    projection = net.model.model.connector.modality_projection.proj
    projection.weight.mul_(3.0 / net.look(pictures).norm(dim=-1).mean())


def contrast(logits: Tensor, positive: Tensor, ignore: Tensor) -> Tensor:
    """Cross-entropy of rows against any of their positives (SupCon); ignored columns leave the denominator."""
    logits = logits.masked_fill(ignore & ~positive, -1e4)
    some = positive.any(1)
    logp = logits.log_softmax(1)
    return -((logp * positive).sum(1) / positive.sum(1).clamp(min=1))[some].mean()


def losses(
    net: TinyVL, batch: Batch, ask: int, long: float, seed: int, step: int, frozen: bool = False
) -> dict[str, Tensor]:
    """`ask`: how many of the batch's cases are asked about; the others only train sight."""
    device = net.weigh.weight.device
    n, regions = len(batch.scenes), batch.regions
    with torch.set_grad_enabled(not frozen):
        tokens = net.look(batch.pictures.to(device))
    seen, scale = net.objects(tokens, regions), 1 / TEMPERATURE
    drawing, name = regions.drawing.to(device), regions.name.to(device)
    same_drawing, same_name = drawing[:, None] == drawing[None], name[:, None] == name[None]
    itself = torch.eye(len(seen), dtype=torch.bool, device=device)
    said = net.read(regions.labels)
    looks = net.likeness(tokens[:n], tokens[n:])
    shown, related = batch.same_drawing.to(device), batch.same_object.to(device)
    out = {
        "figure": F.binary_cross_entropy_with_logits(net.weigh(tokens).squeeze(-1), regions.figure.to(device)),
        "region": contrast(scale * seen @ seen.T, same_drawing & ~itself, same_name | itself),
        "name": contrast(scale * said @ seen.T, same_name, same_name) / 2
        + contrast(scale * seen @ said.T, same_name, same_name) / 2,
        "look": contrast(scale * looks, shown, related) / 2 + contrast(scale * looks.T, shown.T, related.T) / 2,
    }
    if ask:
        voice = net.read(batch.captions).detach()
        reads = torch.einsum("nd,mtd->nmt", voice, F.normalize(tokens[n:], dim=-1)).amax(-1)
        pairs = make_pairs(batch, looks.detach().cpu(), reads.detach().cpu(), ask, long, seed, step)
        out |= asked(net, pairs, tokens)
    return out


def asked(net: TinyVL, pairs: list[Pair], tokens: Tensor) -> dict[str, Tensor]:
    """Mean losses over the pairs, which are read in three runs of like length, so that little of a run is padding."""
    order = sorted(pairs, key=lambda pair: len(net.tokenizer.encode(render(pair))))
    third, sums, counts = -(-len(order) // 3), defaultdict(float), defaultdict(int)
    for at in range(0, len(order), third):
        some = order[at : at + third]
        answer, guided, right = net.answers(some, tokens)
        for name, value in {"answer": answer, "right": right.float().mean().detach(), **guided}.items():
            sums[name] += len(some) * value
            counts[name] += len(some)
    return {name: value / counts[name] for name, value in sums.items()}


def weights(ask: int, frozen: bool) -> dict[str, float]:
    """How much each loss counts: sight alone; sight frozen, so that only names still move; everything together."""
    sight = dict.fromkeys(("figure", "region", "name", "look"), 1.0 if not ask else 0.0 if frozen else 0.5)
    asked = {"answer": 1.0, "point": 1.0, "match": 1.0, "words": 1.0, "decide": 1.0}
    return sight | asked | ({"name": 0.4} if frozen else {"name": 1.0})


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


def rate(step: int, steps: int, peak: float, since: int | None = None) -> float:
    """Warm up over 60 steps since the stage began, under a cosine down to 2 %."""
    warm = min(1.0, ((step if since is None else since) + 1) / 60)
    return peak * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def optimisers(net: TinyVL) -> list[torch.optim.Optimizer]:
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


def worker(rank: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    if args.workers > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29531")
        dist.init_process_group("gloo", rank=rank, world_size=args.workers)
    out, sprites = Path(args.out), Sprites(Path(args.data), "train")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    model = make_model(tokenizer, args.seed)
    whiten_patches(model, make_batch(sprites, 64, 96, 0.5, 0.3, args.seed, 0).pictures)
    net = TinyVL(model, tokenizer).to(args.device).train()
    made, start = optimisers(net), 0
    if args.init and not (out / "last.pt").exists():
        net.load_state_dict(torch.load(args.init, map_location=args.device, weights_only=True)["net"])
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", map_location=args.device, weights_only=True)
        net.load_state_dict(state["net"])
        if state["step"] not in (args.look, args.joint):  # each stage is another task: momentum starts from nothing
            for optimiser, saved in zip(made, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        if state["step"] == args.look:
            quieten(net, make_batch(sprites, 16, 96, 0.5, 0.3, args.seed, 0).pictures)
        start = state["step"]
    seed, since, window = args.seed * 100 + rank, time.time(), {}
    for step in range(start, args.until or args.steps):
        ask, frozen = args.ask if step >= args.look else 0, args.look <= step < args.joint
        hard, plain, long = curriculum(step, args)
        batch = make_batch(sprites, args.ask if frozen else args.cases, 96, hard, plain, seed, step)
        parts = losses(net, batch, ask, long, seed, step, frozen)
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
    parser.add_argument("--cases", type=int, default=32, help="objects of a step, each in a portrait and in a scene")
    parser.add_argument("--ask", type=int, default=16, help="of them, how many are asked about")
    parser.add_argument("--init", help="start from the weights of this checkpoint")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer").exists():
        tokenizer = train_tokenizer(corpus(Path(args.data)))
        make_processor(tokenizer).save_pretrained(out / "processor")
        tokenizer.save_pretrained(out / "tokenizer")
    if args.workers == 1:
        worker(0, args)
    else:
        torch.multiprocessing.spawn(worker, args=(args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
