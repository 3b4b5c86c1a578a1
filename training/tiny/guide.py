"""Teach attention directly. Where a scene is composed, it is known which visual tokens ought to look where; the share
of attention that goes there is trained as a yes or no, beside the answers. Nothing of this is in the shipped model.

Three steps of the second look are guided. In layer 1 the candidate's tokens look at the query where they show what it
asks for: three heads together at a picture, the fourth at words. In layer 2 all four look at words, which have been
read by then. In the last layer the last token looks at the candidate where the answer is yes. Words that stand after
their image look back at it instead. A question has one caption, which is little to learn names from; `naming` shows
every picture after a list of captions, and each of its tokens is to look at the one that names it, among the captions
of all lists.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from architecture import ONE_IMAGE, TOKENS
from batches import Pair, Regions
from contrast import any_of
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

CELLS = TOKENS
MATCH_LAYER, PICTURE_HEADS, DECIDE_HEADS = 1, (0, 2, 3), (0,)
WORDS = {"words": (MATCH_LAYER, (1,)), "words_read": (MATCH_LAYER + 1, (0, 1, 2, 3))}  # layer and heads of each look
CAPTIONS = 10  # of a list
HEAD_OF_CAPTION = 3  # tokens of the turn before anything of the pair


def queries_and_keys(text: Any, layer: int, heads: tuple[int, ...], states: Tensor) -> tuple[Tensor, Tensor]:
    """[n, heads, length, size] twice, turned by their places."""
    block, (n, length, _) = text.layers[layer], states.shape
    inner, some = block.input_layernorm(states), list(heads)
    q, k = (
        project(inner).view(n, length, -1, text.config.head_dim)[:, :, some].transpose(1, 2)
        for project in (block.self_attn.q_proj, block.self_attn.k_proj)
    )
    place = torch.arange(length, device=states.device)
    turned: tuple[Tensor, Tensor] = apply_rotary_pos_emb(q, k, *text.rotary_emb(inner, place[None]))
    return turned


def attention(text: Any, layer: int, heads: tuple[int, ...], states: Tensor, at: Tensor) -> Tensor:
    """Logits [n, heads, a, length] of the attention of the positions `at` [n, a]."""
    q, k = queries_and_keys(text, layer, heads, states)
    rows, place = torch.arange(len(at), device=at.device)[:, None], torch.arange(k.shape[2], device=at.device)
    looking = q.transpose(1, 2)[rows, at].transpose(1, 2)  # [n, heads, a, size]
    logits = looking @ k.transpose(2, 3) / text.config.head_dim**0.5
    return logits.masked_fill(place[None, None, None] > at[:, None, :, None], -1e4)


def share_logit(text: Any, layer: int, heads: tuple[int, ...], states: Tensor, at: Tensor, seen: Tensor) -> Tensor:
    """Log-odds [n, a] that attention of the positions `at` [n, a] falls on `seen` [n, length], mean over heads."""
    logits = attention(text, layer, heads, states, at)
    wanted = seen[:, None, None]
    odds = logits.masked_fill(~wanted, -1e4).logsumexp(-1) - logits.masked_fill(wanted, -1e4).logsumexp(-1)
    return odds.mean(1)


def guidance(
    text: Any, hidden: tuple[Tensor, ...], pairs: list[Pair], ids: list[list[int]], image_id: int
) -> dict[str, Tensor]:
    """Mean losses of matching pictures, of matching words and of deciding, over the pairs that say where to look."""
    device, length = hidden[0].device, hidden[0].shape[1]
    rows = [i for i, pair in enumerate(pairs) if pair.find is not None and not pair.words_last]
    if not rows:
        return {}
    goal = torch.stack([pairs[i].find for i in rows]).to(device)  # type: ignore[misc]
    images = [[k for k, t in enumerate(ids[i]) if t == image_id] for i in rows]
    candidate = torch.tensor([at[-CELLS:] for at in images], device=device)
    query = torch.zeros(len(rows), length, dtype=torch.bool, device=device)
    for line, (i, at) in enumerate(zip(rows, images, strict=True)):
        first, last = (at[0], at[CELLS - 1] + 1) if pairs[i].query is not None else (HEAD_OF_CAPTION, at[0])
        query[line, first:last] = True
    out, weight = {}, torch.tensor(3.0, device=device)
    for name, (layer, heads) in {"match": (MATCH_LAYER, PICTURE_HEADS), **WORDS}.items():
        pick = torch.tensor([(pairs[i].query is not None) == (name == "match") for i in rows], device=device)
        if pick.any():
            states = hidden[layer][torch.tensor(rows)]
            logit = share_logit(text, layer, heads, states[pick], candidate[pick], query[pick])
            out[name] = F.binary_cross_entropy_with_logits(logit, goal[pick], pos_weight=weight)
    last = torch.tensor([[len(pairs_ids) - 1] for pairs_ids in (ids[i] for i in rows)], device=device)
    seen = torch.zeros_like(query).scatter_(1, candidate, True)
    logit = share_logit(text, len(text.layers) - 1, DECIDE_HEADS, hidden[-2][torch.tensor(rows)], last, seen)
    out["decide"] = F.binary_cross_entropy_with_logits(logit.squeeze(1), (goal.amax(1) > 0).float())
    return out


def looking_back(
    text: Any,
    hidden: tuple[Tensor, ...],
    pairs: list[Pair],
    ids: list[list[int]],
    image_id: int,
    brackets: tuple[int, ...],
) -> dict[str, Tensor]:
    """Mean losses where words stand last: one of them looks at what it names, and the last token at the words."""
    rows = [i for i, pair in enumerate(pairs) if pair.find is not None and pair.words_last]
    if not rows:
        return {}
    device, length = hidden[0].device, hidden[0].shape[1]
    shown, said = torch.zeros(2, len(rows), length, dtype=torch.bool, device=device)
    spans = []
    for line, i in enumerate(rows):
        image = torch.tensor([k for k, t in enumerate(ids[i]) if t == image_id], device=device)
        thing = pairs[i].find.to(device) > 1 / 3  # type: ignore[union-attr]
        shown[line, image[thing] if thing.any() else image] = True
        first, last = (len(ids[i]) - 1 - ids[i][::-1].index(bracket) for bracket in brackets)
        said[line, first + 1 : last] = True
        spans.append((first + 1, last - 1))
    longest = max(last - first for first, last in spans) + 1
    at = torch.tensor([[min(first + k, last) for k in range(longest)] for first, last in spans], device=device)
    goal = torch.tensor([float(pairs[i].find.amax() > 0) for i in rows], device=device)  # type: ignore[union-attr]
    some = torch.tensor(rows, device=device)
    looks = share_logit(text, MATCH_LAYER, PICTURE_HEADS, hidden[MATCH_LAYER][some], at, shown).amax(1)
    end = torch.tensor([[len(ids[i]) - 1] for i in rows], device=device)
    decides = share_logit(text, len(text.layers) - 1, DECIDE_HEADS, hidden[-2][some], end, said).squeeze(1)
    loss = F.binary_cross_entropy_with_logits
    return {"back": loss(looks, goal), "back_decide": loss(decides, goal)}


def lists(regions: Regions, pictures: int, rng: Random) -> list[list[int]]:
    """For each picture, regions whose labels make its list of captions: some of its own, others it does not show."""
    names, picture = regions.name.tolist(), regions.picture.tolist()
    own: list[list[int]] = [[] for _ in range(pictures)]
    for region, where in enumerate(picture):
        if names[region] not in {names[other] for other in own[where]}:
            own[where].append(region)
    made = []
    for mine in own:
        taken, listed = {names[r] for r in mine}, rng.sample(mine, min(len(mine), CAPTIONS // 2))
        for region in rng.sample(range(len(names)), len(names)):
            if len(listed) < CAPTIONS and names[region] not in taken:
                taken.add(names[region])
                listed.append(region)
        made.append(rng.sample(listed, len(listed)))
    return made


def naming(
    text: Any, tokenizer: PreTrainedTokenizerFast, image_id: int, tokens: Tensor, regions: Regions, rng: Random
) -> Tensor:
    """Mean cross-entropy of attention among the captions of all lists, over visual tokens that mostly show one thing,
    in each layer that looks at words. A token looks at captions of other lists as if they stood in its own."""
    device, n, listed = tokens.device, len(tokens), lists(regions, len(tokens), rng)
    ids, spans = spelled(tokenizer, [[regions.labels[region] for region in row] for row in listed])
    padded = torch.tensor([row + [0] * (max(map(len, ids)) - len(row)) for row in ids], device=device)
    states = text.embed_tokens(padded).masked_scatter((padded == image_id).unsqueeze(-1), tokens)
    place = text.rotary_emb(states, torch.arange(padded.shape[1], device=device)[None])
    rows, at = torch.arange(n, device=device)[:, None], (padded == image_id).nonzero()[:, 1].view(n, TOKENS)
    shown, clear = (goal.to(device) for goal in names_shown(regions, n))
    same = shown[clear][:, None] == regions.name.to(device)[[region for row in listed for region in row]]
    looks, losses = dict(WORDS.values()), []
    for layer in range(max(looks) + 1):
        if layer:
            states = text.layers[layer - 1](states, position_embeddings=place)
        if layer in looks:
            q, k = queries_and_keys(text, layer, looks[layer], states)
            losses.append(any_of(among_captions(q.transpose(1, 2)[rows, at][clear], k, spans), same))
    return torch.stack(losses).mean()


def spelled(
    tokenizer: PreTrainedTokenizerFast, labels: list[list[str]]
) -> tuple[list[list[int]], list[tuple[int, int, int]]]:
    """(a list of captions with an image after it, token by token; each caption's row, first position and end)."""
    ids, spans = [], []
    for line, captions in enumerate(labels):
        row = tokenizer.encode("<|im_start|>User:")
        for label in captions:
            caption = tokenizer.encode(f"<{label}>")
            spans.append((line, len(row) + 1, len(row) + len(caption) - 1))
            row += caption
        ids.append(row + tokenizer.encode(ONE_IMAGE))
    return ids, spans


def among_captions(looking: Tensor, keys: Tensor, spans: list[tuple[int, int, int]]) -> Tensor:
    """[t, captions] Attention logits of `looking` [t, heads, size], mean over heads, summed over the tokens of each
    caption; `spans` says where these stand in `keys` [n, heads, length, size]."""
    longest, length = max(end - first for _, first, end in spans), keys.shape[2]
    at = torch.tensor([[row * length + min(first + k, end - 1) for k in range(longest)] for row, first, end in spans])
    real = torch.tensor([[first + k < end for k in range(longest)] for _, first, end in spans], device=keys.device)
    flat = keys.transpose(1, 2).flatten(0, 1)[at.to(keys.device)]  # [captions, longest, heads, size]
    logits = torch.einsum("ths,clhs->tcl", looking, flat) / (looking.shape[1] * looking.shape[2] ** 0.5)
    return logits.masked_fill(~real, -1e4).logsumexp(-1)


def names_shown(regions: Regions, pictures: int) -> tuple[Tensor, Tensor]:
    """[pictures, TOKENS] twice: the name that each visual token mostly shows, and whether it fills a third of it."""
    cover = torch.zeros(pictures, int(regions.name.max()) + 1, TOKENS)
    cover.index_put_((regions.picture, regions.name), regions.cover, accumulate=True)
    share, shown = cover.max(1)
    return shown, share > 1 / 3
