"""Let answers about words use what answers about pictures have learnt.

In layer 1 three heads look at a query picture and write one direction where a candidate's token matches; later layers
answer from it. The head for words learns where to look long before anything reads what it writes (docs/lab/log.md), so
its value and output are set: a word's value is one number, its output that same direction.
"""

from __future__ import annotations

import torch
from batches import Batch, Pair, found, make_batch
from guide import MATCH_LAYER, WORDS
from network import TinyVL, pictures_in_order, render
from scenes import Sprites
from torch import Tensor
from wordings import answer

from looktwice.score.prompting.built_in import PROMPTS, Prompt

GAIN, RIDGE, KEPT = 4.0, 1.0, 0.1  # of the direction; of the regression; of what the head's values were


@torch.no_grad()
def lend(net: TinyVL, sprites: Sprites, side: int, seed: int, batches: int = 4, cases: int = 16) -> None:
    """Set the words' head by four batches of training drawings."""
    block, size = net.model.model.text_model.layers[MATCH_LAYER], net.model.config.text_config.head_dim
    written: list[Tensor] = []
    watch = block.self_attn.register_forward_hook(lambda _module, _args, out: written.append(out[0]))
    matched, other, states, is_word = [], [], [], []
    for step in range(batches):
        batch = make_batch(sprites, cases, side, 0.5, 0.05, seed, step, hands=False)
        tokens = net.look(batch.pictures.to(net.weigh.weight.device))
        pairs, ids = asked(net, batch, PROMPTS["object"], tokens)
        rows = torch.tensor([[k for k, t in enumerate(i) if t == net.image_id][-tokens.shape[1] :] for i in ids])
        out = written[-1][torch.arange(len(ids))[:, None], rows]
        shown = torch.stack([pair.find for pair in pairs if pair.find is not None])
        matched.append(out[shown > 0.5])
        other.append(out[shown < 0.05])
        _, ids = asked(net, batch, PROMPTS["match-query-first"], tokens)
        inner = block.input_layernorm(net.hidden[MATCH_LAYER])
        for line, row in zip(inner, ids, strict=True):
            states.append(line[: len(row)])
            is_word.append(caption_words(net, row).to(line.device))
    watch.remove()
    direction = torch.cat(matched).mean(0) - torch.cat(other).mean(0)
    value, output = block.self_attn.v_proj.weight, block.self_attn.o_proj.weight
    for head in WORDS["words"][1]:
        value[head * size : (head + 1) * size] *= KEPT
        value[head * size] = telling(torch.cat(states), torch.cat(is_word))
        output[:, head * size] = GAIN * direction


def asked(net: TinyVL, batch: Batch, prompt: Prompt, tokens: Tensor) -> tuple[list[Pair], list[list[int]]]:
    """Run one question about each scene, the right one and another; what the layers did stays in `net.hidden`."""
    n, pairs, pictures = len(batch.scenes), [], "query.image" in prompt.parts
    for i, portrait in enumerate(batch.portraits):
        sprite = portrait.placed[0].sprite
        for j in (i, (i + n // 2) % n):
            query, text = (i, None) if pictures else (None, sprite.label)
            there = found(batch.scenes[j], sprite, pictures)
            pairs.append(Pair(prompt, query, n + j, text, None, answer(prompt, i == j), there))
    ids = [net.tokenizer.encode(render(pair)) for pair in pairs]
    net._run(ids, [pictures_in_order(pair) for pair in pairs], tokens)
    return pairs, ids


def caption_words(net: TinyVL, ids: list[int]) -> Tensor:
    """[length] 1 where a token stands between < and >."""
    marks, spelled = torch.zeros(len(ids)), net.tokenizer.convert_ids_to_tokens(ids)
    marks[spelled.index("<") + 1 : spelled.index(">")] = 1
    return marks


def telling(states: Tensor, is_word: Tensor) -> Tensor:
    """[width] weights of a number that is about 1 for words of a caption and 0 for all else; words count five times."""
    weighed = states * torch.where(is_word > 0, 5.0, 1.0)[:, None]
    square = weighed.T @ states + RIDGE * torch.eye(states.shape[1], device=states.device)
    return torch.linalg.solve(square, weighed.T @ is_word)
