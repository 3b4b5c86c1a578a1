"""tiny-vl as it is trained: the shipped model, and small heads that only training uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from architecture import ONE_IMAGE, TOKENS
from batches import Pair, Regions
from guide import guidance, looking_back
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast


class TinyVL(nn.Module):
    """The shipped model plus four small heads that only training uses."""

    def __init__(self, model: Idefics3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        width = model.config.text_config.hidden_size
        self.weigh = nn.Linear(width, 1)
        self.speak = nn.Linear(width, width)
        self.mean = nn.Linear(width, width)
        self.find = nn.Linear(width, 1)
        self.image_id = model.config.image_token_id

    def look(self, pictures: Tensor) -> Tensor:
        """[n, 3, s, s] -> visual tokens [n, 25, d]."""
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
        """[r, d] of regions: the mean of their tokens, weighed by how much of each they fill."""
        cover = regions.cover.to(tokens.device)
        cover = cover / cover.sum(1, keepdim=True)
        return torch.einsum("rt,rtd->rd", cover, tokens[regions.picture.to(tokens.device)])

    def meaning(self, tokens: Tensor) -> Tensor:
        """Unit vectors [..., d] in the space of the teacher, where pictures lie near their names."""
        return F.normalize(self.mean(tokens), dim=-1)

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
        brackets = tuple(self.tokenizer.convert_tokens_to_ids([*"<>"]))
        guided |= looking_back(self.model.model.text_model, self.hidden, pairs, ids, self.image_id, brackets)
        guided |= self._pointing(pairs, ids)
        where = [(i, start + k) for i, (start, reply) in enumerate(spans) for k in range(len(reply))]
        goal = torch.tensor([t for _, reply in spans for t in reply], device=states.device)
        logits = self.model.lm_head(states[[i for i, _ in where], [k for _, k in where]])
        first = torch.tensor([k == spans[i][0] for i, k in where], device=states.device)
        return F.cross_entropy(logits, goal), guided, (logits.argmax(-1) == goal)[first]

    def _pointing(self, pairs: list[Pair], ids: list[list[int]]) -> dict[str, Tensor]:
        """Where in the candidate is it? Read one layer below the last, so that the answer can be drawn from it."""
        rows = [i for i, pair in enumerate(pairs) if pair.find is not None and not pair.words_last]
        if not rows:
            return {}
        at = [[k for k, t in enumerate(ids[i]) if t == self.image_id][-TOKENS:] for i in rows]
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
