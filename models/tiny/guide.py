"""Teach attention directly. Where a scene is composed, it is known which visual tokens ought to look where; the share
of attention that goes there is trained as a yes or no, beside the answers. Nothing of this is in the shipped model.

Three steps of the second look are guided: in layer 1 the candidate's tokens look at the query where they show what
it asks for (three heads together at a picture, the fourth at words); in the last layer the last token looks at the
candidate where the answer is yes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from batches import Pair
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

CELLS = 16
MATCH_LAYER, PICTURE_HEADS, WORDS_HEADS, DECIDE_HEADS = 1, (0, 2, 3), (1,), (0,)
HEAD_OF_CAPTION = 3  # tokens of the turn before anything of the pair


def share_logit(text: Any, layer: int, heads: tuple[int, ...], states: Tensor, at: Tensor, seen: Tensor) -> Tensor:
    """Log-odds [n, a] that attention of the positions `at` [n, a] falls on `seen` [n, length], mean over heads."""
    block, (n, length, _) = text.layers[layer], states.shape
    size = text.config.head_dim
    inner = block.input_layernorm(states)
    q, k = (
        project(inner).view(n, length, -1, size).transpose(1, 2)
        for project in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    place = torch.arange(length, device=states.device)
    q, k = apply_rotary_pos_emb(q, k, *text.rotary_emb(inner, place[None]))
    rows = torch.arange(n, device=states.device)[:, None]
    some = list(heads)
    looking = q.transpose(1, 2)[rows, at][:, :, some].transpose(1, 2)  # [n, heads, a, size]
    logits = looking @ k[:, some].transpose(2, 3) / size**0.5
    logits = logits.masked_fill(place[None, None, None] > at[:, None, :, None], -1e4)
    wanted = seen[:, None, None]
    odds = logits.masked_fill(~wanted, -1e4).logsumexp(-1) - logits.masked_fill(wanted, -1e4).logsumexp(-1)
    return odds.mean(1)


def guidance(
    text: Any, hidden: tuple[Tensor, ...], pairs: list[Pair], ids: list[list[int]], image_id: int
) -> dict[str, Tensor]:
    """Mean losses of matching pictures, of matching words and of deciding, over the pairs that say where to look."""
    device, length = hidden[0].device, hidden[0].shape[1]
    rows = [i for i, pair in enumerate(pairs) if pair.find is not None]
    if not rows:
        return {}
    goal = torch.stack([pairs[i].find for i in rows]).to(device)  # type: ignore[misc]
    images = [[k for k, t in enumerate(ids[i]) if t == image_id] for i in rows]
    candidate = torch.tensor([at[-CELLS:] for at in images], device=device)
    query = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
    for line, (i, at) in enumerate(zip(rows, images, strict=True)):
        first, last = (at[0], at[CELLS - 1] + 1) if pairs[i].query is not None else (HEAD_OF_CAPTION, at[0])
        query[line, first:last] = True
    states, out = hidden[MATCH_LAYER][torch.tensor(rows)], {}
    weight = torch.tensor(3.0, device=device)
    for name, heads, pictures in (("match", PICTURE_HEADS, True), ("words", WORDS_HEADS, False)):
        pick = torch.tensor([(pairs[i].query is not None) == pictures for i in rows], device=device)
        if pick.any():
            logit = share_logit(text, MATCH_LAYER, heads, states[pick], candidate[pick], query[pick])
            out[name] = F.binary_cross_entropy_with_logits(logit, goal[pick], pos_weight=weight)
    last = torch.tensor([[len(pairs_ids) - 1] for pairs_ids in (ids[i] for i in rows)], device=device)
    seen = torch.zeros_like(query).scatter_(1, candidate, True)
    logit = share_logit(text, len(text.layers) - 1, DECIDE_HEADS, hidden[-2][torch.tensor(rows)], last, seen)
    out["decide"] = F.binary_cross_entropy_with_logits(logit.squeeze(1), (goal.amax(1) > 0).float())
    return out
