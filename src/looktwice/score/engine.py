"""The fast path: one query against many candidates, the same scores as one pair at a time.

What stands before the first candidate is run once and its keys and values shared; candidates run in batches of similar
length, padded on the right, at explicit positions; only each row's last position meets the vocabulary. Knows no files
and no tables; what differs between models is in `families`.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from looktwice.errors import LooktwiceError, ModelError
from looktwice.score import chat, labels, memory, pairs, prefix, probability, prompts, released
from looktwice.score.families.base import Family, Row
from looktwice.score.mllm import Mllm, TokensInfo
from looktwice.score.prompt import Piece, Prompt
from looktwice.score.tower import Tower
from looktwice.types import Item, PairScores, VisualTokens

BLOCK = 512  # candidates whose tokens are held at once


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair ready to run: where the candidate stood in the call, its row, and its pictures in the row's order."""

    index: int
    row: Row
    pictures: tuple[VisualTokens, ...]
    prefix_limit: int


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows of C new tokens: `embeds` [n, C, d], `visual` [n, C], `positions` [(axes,) n, C], `last` [n]."""

    embeds: Tensor
    visual: Tensor
    positions: Tensor
    last: Tensor
    extras: Mapping[str, Any]


class Engine:
    """Scores pairs on the fast path.

    `batch_size` limits the rows of a batch (None: as memory allows), `cache_bytes` the visual tokens remembered between
    calls. With `as_released`, the checkpoint's repetition penalty is applied before the read-out.
    """

    def __init__(
        self,
        mllm: Mllm,
        family: Family,
        prompt: Prompt,
        *,
        batch_size: int | None = None,
        cache_bytes: int = 1 << 30,
        as_released: bool = False,
    ) -> None:
        self.mllm = mllm
        self.family = family
        self.prompt = prompt
        self.batch_size = batch_size
        self.penalty = released.penalty(mllm.model) if as_released else 1.0
        self.labels = labels.resolve(prompt, mllm.processor.tokenizer)
        self.tower = Tower(mllm, family, cache_bytes)
        self._clean = chat.cleaner(mllm.processor)
        self._ids: OrderedDict[tuple[Piece, ...], list[int]] = OrderedDict()
        self._shared: tuple[Any, Any] | None = None
        self._query: tuple[VisualTokens, VisualTokens] | None = None
        text_config = mllm.model.config.get_text_config()
        self._cost = memory.Cost.of(text_config, mllm.model.dtype.itemsize)
        self._longest = int(getattr(text_config, "max_position_embeddings", 0) or 1 << 30)

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see PairScorer."""
        count = len(self.labels.ids)
        parts: list[tuple[Sequence[int], PairScores]] = []
        fit = pairs.showable(self.prompt, query, candidates)
        parts.append((fit, probability.blank(len(fit), count, "failed")))
        for rows, logits in self.logits(query, candidates, fit):
            parts.append((rows, probability.read(logits, self.labels)))
        return probability.scatter(len(candidates), count, parts, "missing")

    @torch.no_grad()
    def logits(
        self, query: Item, candidates: Sequence[Item], which: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Raw next-token logits [n, V] in float32, batch by batch, with the candidates' indices they belong to.

        A candidate that cannot be used is logged and left out. Raises ModelError where the query cannot be used.
        """
        which = range(len(candidates)) if which is None else which
        for start in range(0, len(which), BLOCK):
            groups: dict[int, list[int]] = {}
            for index in which[start : start + BLOCK]:
                groups.setdefault(len(self._sides(query, candidates[index])), []).append(index)
            for pictures, members in groups.items():
                yield from self._group(query, candidates, members, pictures)

    @torch.no_grad()
    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Visual tokens of pictures as this scorer's prompt will show them; raises where one cannot be used."""
        found = self.tower.look(items, self._pictures)
        for tokens in found:
            if isinstance(tokens, LooktwiceError):
                raise tokens
        return [tokens for tokens in found if isinstance(tokens, VisualTokens)]

    def tokens_info(self) -> TokensInfo:
        """What a table of these tokens must remember."""
        shown = f"+{self._pictures}" if self.family.depends_on_pictures else ""
        mllm = self.mllm
        return TokensInfo(mllm.name, mllm.revision, mllm.preprocessing + shown, self.family.width, self.family.levels)

    def describe(self) -> Mapping[str, Any]:
        """See PairScorer."""
        shared = "query" if self.prompt.shares_query else "nothing: this prompt shows the candidate first"
        return pairs.describe(
            self.mllm, self.prompt, "fast", shared=shared, batch_size=self.batch_size, repetition_penalty=self.penalty
        )

    def with_prompt(self, prompt: str | Prompt) -> Engine:
        """The same model, and the same remembered visual tokens, asked another question."""
        other = copy.copy(self)
        other.prompt = prompts.get(prompt)
        other.labels = labels.resolve(other.prompt, self.mllm.processor.tokenizer)
        return other

    # --- from items to rows --------------------------------------------------------------------------------------

    @property
    def _pictures(self) -> int:
        return max(1, sum(part.endswith("image") for part in self.prompt.parts))

    def _sides(self, query: Item, candidate: Item) -> list[str]:
        return [str(p.side) for p in self.prompt.lay_out(query, candidate) if p.text is None]

    def _look_at(self, query: Item, pictures: int) -> VisualTokens:
        """The query's tokens: the same object as in the last call, so that the shared prefix is known again."""
        if query.tokens is None or self._query is None or self._query[0] is not query.tokens:
            seen = self.tower.look([query], pictures)[0]
            if isinstance(seen, LooktwiceError):
                raise seen
            if query.tokens is None:
                return seen
            self._query = (query.tokens, seen)
        return self._query[1]

    def _encode(self, pieces: tuple[Piece, ...]) -> list[int]:
        if pieces not in self._ids:
            self._ids[pieces] = chat.encode(self.mllm.processor, chat.render(self.mllm.processor, pieces))
            if len(self._ids) > BLOCK:
                self._ids.popitem(last=False)
        return self._ids[pieces]

    def _group(
        self, query: Item, candidates: Sequence[Item], members: Sequence[int], pictures: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        ready = self._pairs(query, candidates, members, pictures)
        if not ready:
            return
        length = _shared_length(ready)
        cache = self._prefix(ready[0], length)
        lengths = [len(pair.row.ids) - length for pair in ready]
        for batch in memory.plan(lengths, lambda n: self._rows(n, length)):
            run = memory.halving(lambda part: self._run(part, length, cache), [ready[i] for i in batch])
            for part, logits in run:
                yield [pair.index for pair in part], logits

    def _pairs(self, query: Item, candidates: Sequence[Item], members: Sequence[int], pictures: int) -> list[Pair]:
        sides = self._sides(query, candidates[members[0]])
        seen: list[VisualTokens] = []
        if "query" in sides:
            seen = [self._look_at(query, pictures)]
        found: Sequence[VisualTokens | LooktwiceError | None] = [None] * len(members)
        if "candidate" in sides:
            found = self.tower.look([candidates[i] for i in members], pictures)
        ready: list[Pair] = []
        rows: dict[Any, Row] = {}
        for index, tokens in zip(members, found, strict=True):
            if isinstance(tokens, LooktwiceError):
                pairs.report(candidates[index], tokens)
                continue
            own = {"query": seen[0] if seen else None, "candidate": tokens}
            shown = tuple(t for t in (own[side] for side in sides) if t is not None)
            pieces = self.prompt.lay_out(query, candidates[index], self._clean)
            key = (pieces, *(t.layout for t in shown))
            if key not in rows:
                rows[key] = self.family.spread(self._encode(pieces), [t.layout for t in shown])
            row = rows[key]
            if int(row.positions.max()) >= self._longest:
                pairs.report(candidates[index], _too_long(int(row.positions.max()) + 1, self._longest))
                continue
            limit = row.starts[sides.index("candidate")] if "candidate" in sides else len(row.ids) - 1
            ready.append(Pair(index, row, shown, limit))
        return ready

    # --- from rows to logits -------------------------------------------------------------------------------------

    def _rows(self, length: int, shared: int) -> int:
        device = self.mllm.model.device
        tokens = memory.BATCH_TOKENS[device.type == "cpu"]
        most = self._cost.rows(length, shared, memory.room(device), tokens)
        return min(most, self.batch_size or most)

    def _prefix(self, pair: Pair, length: int) -> Any:
        """Keys and values of the first `length` tokens; those of the last call are kept for the next."""
        shown = [t for start, t in zip(pair.row.starts, pair.pictures, strict=True) if start < length]
        key = (tuple(pair.row.ids[:length].tolist()), *(id(t.features) for t in shown))
        if self._shared is not None and self._shared[0] == key:
            return self._shared[1][0]
        if length == 0:
            return None
        cache = DynamicCache(config=self.mllm.model.config.get_text_config())
        self._decode(self._batch([pair], 0, length), prefix.mask(0, length, self.mllm.model.device), cache)
        shared = prefix.share(cache)
        self._shared = (key, (shared, shown))  # `shown` keeps the ids in the key from being given away again
        return shared

    def _run(self, part: Sequence[Pair], length: int, cache: Any) -> Tensor:
        batch = self._batch(part, length)
        mask = prefix.mask(length, batch.embeds.shape[1], batch.embeds.device)
        hidden = self._decode(batch, mask, cache)
        rows = torch.arange(len(part), device=hidden.device)
        head = self.mllm.model.get_output_embeddings()
        logits: Tensor = head(hidden[rows, batch.last].to(head.weight.dtype))
        return released.penalise(logits.float(), [pair.row.ids for pair in part], self.penalty)

    def _decode(self, batch: Batch, mask: Tensor, cache: Any) -> Tensor:
        out = self.family.decoder(
            inputs_embeds=batch.embeds,
            position_ids=batch.positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **batch.extras,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _batch(self, part: Sequence[Pair], start: int, stop: int | None = None) -> Batch:
        """The tokens [start, stop) of every pair, padded on the right."""
        device = self.mllm.model.device
        rows = [pair.row for pair in part]
        cut = slice(start, stop)
        ids = _pad([row.ids[cut] for row in rows]).to(device)
        visual = _pad([row.visual[cut] for row in rows]).to(device)
        newline = _pad([row.newline[cut] for row in rows]).to(device)
        positions = torch.stack(
            [_pad([row.positions[axis, cut] for row in rows]) for axis in range(len(rows[0].positions))]
        )
        shown = [
            tokens
            for pair in part
            for at, tokens in zip(pair.row.starts, pair.pictures, strict=True)
            if start <= at and (stop is None or at < stop)
        ]
        embeds = self.mllm.model.get_input_embeddings()(ids)
        if shown:
            embeds[visual] = torch.cat([tokens.features for tokens in shown])
        vector = self.family.newline()
        if vector is not None:
            embeds[newline] = vector.to(embeds)
        extras = self.family.extras(visual, [t.levels for t in shown if t.levels is not None])
        last = torch.tensor([len(row.ids[cut]) - 1 for row in rows], device=device)
        positions = positions.to(device)
        return Batch(embeds, visual, positions if len(positions) > 1 else positions[0], last, extras)


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _shared_length(ready: Sequence[Pair]) -> int:
    """How many first tokens all rows have in common, before the first one that belongs to a candidate's picture."""
    limit = min(min(pair.prefix_limit, len(pair.row.ids) - 1) for pair in ready)
    first = ready[0].row.ids
    for row in {id(pair.row): pair.row for pair in ready}.values():
        differs = (row.ids[:limit] != first[:limit]).nonzero()
        limit = int(differs[0]) if len(differs) else limit
    return limit


def _too_long(length: int, most: int) -> ModelError:
    return ModelError(
        f"This pair takes {length} positions and the model has {most}; lower the resolution or shorten the text."
    )
