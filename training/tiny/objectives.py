"""What tiny-vl learns at each step: the losses of sight, of names and of questions, and how much each counts."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import torch
import torch.nn.functional as F
from batches import Batch, Pair, make_pairs
from contrast import TEMPERATURE, among_names, both_ways, contrast
from guide import naming
from network import TinyVL, render
from teacher import Teacher
from torch import Tensor

PHRASES = 48  # texts of each step that are only read, not seen


def losses(
    net: TinyVL, teacher: Teacher, batch: Batch, ask: int, long: float, seed: int, step: int, frozen: bool = False
) -> dict[str, Tensor]:
    """`ask`: how many of the batch's cases are asked about; the others only train sight."""
    device = net.weigh.weight.device
    n, regions = len(batch.scenes), batch.regions
    with torch.set_grad_enabled(not frozen):
        tokens = net.look(batch.pictures.to(device))
    objects, scale = net.objects(tokens, regions), 1 / TEMPERATURE
    seen, meant = F.normalize(objects, dim=-1), net.meaning(objects)
    drawing, name = regions.drawing.to(device), regions.name.to(device)
    same_drawing, same_name = drawing[:, None] == drawing[None], name[:, None] == name[None]
    itself = torch.eye(len(seen), dtype=torch.bool, device=device)
    phrases = teacher.phrases(PHRASES, Random(seed * 3_000_017 + step))
    said = net.read([*regions.labels, *phrases])
    taught = teacher.taught(regions.labels, regions.objects, phrases).to(device)
    voice, all_looks = said[: len(seen)], teacher.looks.to(device)
    thing = teacher.numbers(regions.objects).to(device)
    looks = net.likeness(tokens[:n], tokens[n:])
    shown, related = batch.same_drawing.to(device), batch.same_object.to(device)
    out = {
        "figure": F.binary_cross_entropy_with_logits(net.weigh(tokens).squeeze(-1), regions.figure.to(device)),
        "region": contrast(scale * seen @ seen.T, same_drawing & ~itself, same_name | itself),
        "name": both_ways(scale * voice @ meant.T, same_name, same_name),
        "thing": among_names(meant, all_looks, thing) + among_names(voice, all_looks, thing) / 2,
        "taught": 1 - (meant * teacher.drawings[regions.drawing].to(device)).sum(-1).mean(),
        "read": 1 - (said * taught).sum(-1).mean(),
        "look": both_ways(scale * looks, shown, related),
    }
    if ask:
        captions = net.read(batch.captions).detach()
        reads = torch.einsum("nd,mtd->nmt", captions, net.meaning(tokens[n:].detach())).amax(-1)
        pairs = make_pairs(batch, looks.detach().cpu(), reads.detach().cpu(), ask, long, seed, step)
        out |= asked(net, pairs, tokens)
        lists = Random(seed * 5_000_011 + step)
        out["named"] = naming(net.model.model.text_model, net.tokenizer, net.image_id, tokens, regions, lists)
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
    guided = ("answer", "point", "match", "words", "words_read", "decide", "named", "back", "back_decide")
    return (
        sight | dict.fromkeys(guided, 1.0) | {"taught": 8.0, "read": 6.0, "name": 0.4 if frozen else 1.0, "thing": 1.0}
    )
