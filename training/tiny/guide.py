"""Teach attention directly. Where a scene is composed, it is known which visual tokens ought to look where; the share
of attention that goes there is trained as a yes or no, beside the answers. Nothing of this is in the shipped model.

Three steps of the second look are guided. In layer 1 the candidate's tokens look at the query where they show what it
asks for: three heads together at a picture, the fourth at words. In layer 2 all four look at words, which have been
read by then. In the last layer the last token looks at the candidate where the answer is yes. Words that stand after
their image look back at it instead. A question has one caption, which is little to learn names from; `naming` shows
every picture after a list of captions, and each of its tokens is to look at the one that names it.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from architecture import ONE_IMAGE, TOKENS
from batches import Pair, Regions
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

CELLS = TOKENS
MATCH_LAYER, PICTURE_HEADS, DECIDE_HEADS = 1, (0, 2, 3), (0,)
WORDS = {"words": (MATCH_LAYER, (1,)), "words_read": (MATCH_LAYER + 1, (0, 1, 2, 3))}  # layer and heads of each look
CAPTIONS = 10  # of a list
HEAD_OF_CAPTION = 3  # tokens of the turn before anything of the pair


def attention(text: Any, layer: int, heads: tuple[int, ...], states: Tensor, at: Tensor) -> Tensor:
    """Logits [n, heads, a, length] of the attention of the positions `at` [n, a]."""
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
    """Mean cross-entropy of attention among the captions of a list, over visual tokens that mostly show one of them, in
    each layer that looks at words."""
    device, n, ids, spans = tokens.device, len(tokens), [], []
    for listed in lists(regions, n, rng):
        row, where = tokenizer.encode("<|im_start|>User:"), {}
        for region in listed:
            caption = tokenizer.encode(f"<{regions.labels[region]}>")
            where[region] = (len(row) + 1, len(row) + len(caption) - 1)
            row += caption
        ids.append(row + tokenizer.encode(ONE_IMAGE))
        spans.append(where)
    longest = max(map(len, ids))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
    shown, seen, weight = (goal.to(device) for goal in naming_goals(regions, spans, longest))
    states = text.embed_tokens(padded).masked_scatter((padded == image_id).unsqueeze(-1), tokens)
    place = text.rotary_emb(states, torch.arange(longest, device=device)[None])
    at = (padded == image_id).nonzero()[:, 1].view(n, TOKENS)
    looks, losses = dict(WORDS.values()), []
    for layer in range(max(looks) + 1):
        if layer:
            states = text.layers[layer - 1](states, position_embeddings=place)
        if layer in looks:
            logits = attention(text, layer, looks[layer], states, at).mean(1)  # [n, TOKENS, length]
            losses.append((told_apart(logits, seen, shown) * weight).sum() / weight.sum())
    return torch.stack(losses).mean()


def told_apart(logits: Tensor, seen: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy [n, TOKENS] of attention among captions; `seen` and `shown` as `naming_goals` gives them."""
    among = torch.where(seen[:, :, None], logits[:, None], -1e4).logsumexp(-1)  # [n, captions, TOKENS]
    return -among.log_softmax(1).transpose(1, 2).gather(2, shown[..., None]).squeeze(2)


def naming_goals(
    regions: Regions, spans: list[dict[int, tuple[int, int]]], length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(caption that each visual token shows [n, TOKENS], positions that spell each caption [n, CAPTIONS, length], how
    much of the token the thing fills [n, TOKENS], 0 where nothing of the list fills a third)."""
    n = len(spans)
    cover, seen = torch.zeros(n, CAPTIONS, TOKENS), torch.zeros(n, CAPTIONS, length, dtype=torch.bool)
    for picture, where in enumerate(spans):
        inside = (regions.picture == picture).nonzero().squeeze(1)
        for k, (region, (first, last)) in enumerate(where.items()):
            seen[picture, k, first:last] = True
            cover[picture, k] = regions.cover[inside[regions.name[inside] == regions.name[region]]].sum(0)
    share, shown = cover.max(1)
    return shown, seen, share * (share > 1 / 3)
