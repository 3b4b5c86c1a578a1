"""Score one query against many candidates on the fast path, with the same scores as one pair at a time.

The tokens before the first candidate run once, and all candidates share their keys and values. Candidates run in
batches of similar length, padded on the right, at explicit positions. Only each row's last position meets the
vocabulary. This module knows neither files nor tables; `families` holds the differences between models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from looktwice.errors import LooktwiceError, ModelError
from looktwice.models.processors import cleaner
from looktwice.score.base import Scorer, TokenMaker
from looktwice.score.local import batches, common, memory, prefix_cache
from looktwice.score.local.families.base import Family
from looktwice.score.local.last_position import hook_lock, only_last
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.query_memory import QueryMemory
from looktwice.score.local.retrace import Retrace
from looktwice.score.local.retracer import Evidence, Retracer
from looktwice.score.local.rows import Batch, Pair, PromptRow
from looktwice.score.local.vision_tower import Tower
from looktwice.score.prompting import built_in, chat
from looktwice.score.prompting.prompt import Piece, Prompt
from looktwice.score.readout import labels, modes, probability, repetition_penalty
from looktwice.types import Item, PairScores, TokensInfo, VisualTokens

BLOCK = 512  # candidates whose tokens are held at once
R = TypeVar("R")
BatchRunner: TypeAlias = Callable[
    [Sequence[Pair], int, Any], R
]  # (pairs, how many of their first tokens are shared, those)


class Engine(Scorer):
    """Scores pairs on the fast path.

    `batch_size` limits the rows of a batch (None: as memory allows), `cache_bytes` the visual tokens kept between
    calls. With `as_released`, the checkpoint's repetition penalty is applied before the read-out. `mode` names what is
    read from the next token's distribution. `retrace` shows the images once more while the model answers.
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
        mode: str = modes.P_LABEL,
        retrace: Retrace | None = None,
    ) -> None:
        self.mllm = mllm
        self.family = family
        self.prompt = prompt
        self.mode = mode
        self.retracer = Retracer(retrace, mllm, family) if retrace is not None and retrace.alpha else None
        self.batch_size = batch_size
        self.penalty = repetition_penalty.penalty(mllm.model) if as_released else 1.0
        self.labels = labels.resolve(prompt, mllm.processor.tokenizer)
        self.read = modes.reader(mode, prompt, mllm.processor.tokenizer)
        self.tower = Tower(mllm, family, cache_bytes)
        self.clean = cleaner(mllm.processor)
        self.hook_lock = hook_lock(mllm.model)
        self.encode = lru_cache(BLOCK)(partial(_encode, mllm.processor, family))  # a bound method would be a cycle
        self._memory = QueryMemory(cache_bytes // 4)  # `copy` in with_prompt shares it and the tower's cache
        text_config = mllm.model.config.get_text_config()
        self._cost = memory.Cost.of(text_config, mllm.model.dtype.itemsize)
        self._longest = int(getattr(text_config, "max_position_embeddings", 0) or 1 << 30)

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see Scorer."""
        count = len(self.labels.ids)
        parts: list[tuple[Sequence[int], PairScores]] = []
        fit = common.showable(self.prompt, query, candidates)
        parts.append((fit, probability.blank(len(fit), count, "failed")))
        for which, logits in self.logits(query, candidates, fit):
            parts.append((which, self.read(logits, self.labels)))
        return probability.scatter(len(candidates), count, parts, "missing")

    @torch.no_grad()
    def logits(
        self, query: Item, candidates: Sequence[Item], which: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield raw next-token logits [n, V] in float32, batch by batch, with the indices of their candidates.

        A candidate that cannot be used is logged and left out. Raises ModelError if the query cannot be used.
        """
        yield from self.each(query, candidates, self.run, which)

    def each(
        self, query: Item, candidates: Sequence[Item], run: BatchRunner[R], which: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], R]]:
        """Yield the result of `run` for each batch, with the indices of its candidates; see `logits`."""
        which = range(len(candidates)) if which is None else which
        for start in range(0, len(which), BLOCK):
            groups: dict[int, list[int]] = {}  # by images shown: some families treat one image unlike several
            for index in which[start : start + BLOCK]:
                groups.setdefault(len(self._sides(query, candidates[index])), []).append(index)
            for images, members in groups.items():
                yield from self.batches(self.pairs(query, candidates, members, images), run)

    @torch.no_grad()
    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return the visual tokens of images as this scorer's prompt shows them; raise if one cannot be used."""
        return self.tower.demand(items, self._image_count)

    def tokens_info(self) -> TokensInfo:
        """Return the facts about these tokens that a table must store."""
        shown = f"+{self._image_count}" if self.family.depends_on_images else ""
        mllm, family = self.mllm, self.family
        preprocessing = mllm.preprocessing + shown
        return TokensInfo(mllm.name, mllm.revision, preprocessing, family.width, family.levels, mllm.resampler)

    def tokens(self) -> TokenMaker:
        """Return itself, a TokenMaker by its `visual_tokens`, `tokens_info` and `placement`."""
        return self

    def placement(self) -> tuple[torch.device, torch.dtype]:
        """Return the device and dtype of the model."""
        return self.mllm.model.device, self.mllm.model.dtype

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        shared = "query" if self.prompt.shares_query else "nothing: this prompt shows the candidate first"
        return common.settings(
            self.mllm,
            self.prompt,
            "fast",
            mode=self.mode,
            retrace=str(self.retracer.spec) if self.retracer else "off",
            shared=shared,
            batch_size=self.batch_size,
            repetition_penalty=self.penalty,
        )

    def stats(self) -> Mapping[str, Any]:
        """Return how often retrace fired, and where."""
        return {"retrace": self.retracer.report()} if self.retracer else {}

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Engine:
        """Return a scorer of the same model, sharing its cached visual tokens, with another prompt or mode."""
        other = copy.copy(self)
        other.prompt, other.mode = built_in.get(prompt), mode or self.mode
        other.labels = labels.resolve(other.prompt, self.mllm.processor.tokenizer)
        other.read = modes.reader(other.mode, other.prompt, self.mllm.processor.tokenizer)
        return other

    # --- from items to rows --------------------------------------------------------------------------------------

    @property
    def _image_count(self) -> int:
        return max(1, sum(part.endswith("image") for part in self.prompt.parts))

    def _sides(self, query: Item, candidate: Item) -> list[str]:
        return [str(p.side) for p in self.prompt.lay_out(query, candidate) if p.text is None]

    def _query_tokens(self, query: Item, images: int) -> VisualTokens:
        """Return the query's tokens: the same object as in earlier calls, which identifies the cached prefix."""
        return self._memory.tokens(query, images, lambda: self.tower.demand([query], images)[0])

    def too_long(self, row: PromptRow) -> ModelError | None:
        """Return an error if the model has too few positions for a row, else None."""
        length = int(row.positions.max()) + 1
        return batches.too_long(length, self._longest) if length > self._longest else None

    def batches(self, ready: Sequence[Pair], run: BatchRunner[R]) -> Iterator[tuple[list[int], R]]:
        """Run pairs that begin alike; yield the result of `run` for each batch, with its indices."""
        if not ready:
            return
        # retrace that changes the beginning, or reads candidates there, leaves nothing to share
        length = 0 if self.retracer and not self.retracer.spec.shares_prefix else batches.shared_length(ready)
        cache = self._prefix(ready[0], length)
        lengths = [len(pair.row.ids) - length for pair in ready]
        for batch in memory.plan(lengths, lambda n: self._rows(n, length)):
            for part, result in memory.halving(lambda part: run(part, length, cache), [ready[i] for i in batch]):
                yield [pair.index for pair in part], result

    def pairs(self, query: Item, candidates: Sequence[Item], members: Sequence[int], images: int) -> list[Pair]:
        """Return the usable candidates at `members`, which show `images` images each, as rows of tokens."""
        sides = self._sides(query, candidates[members[0]])
        seen: list[VisualTokens] = []
        if "query" in sides:
            seen = [self._query_tokens(query, images)]
        found: Sequence[VisualTokens | LooktwiceError | None] = [None] * len(members)
        if "candidate" in sides:
            found = self.tower.visual_tokens([candidates[i] for i in members], images)
        ready: list[Pair] = []
        spread: dict[Any, PromptRow] = {}  # rows depend on text and layout only, so most candidates share one
        for index, tokens in zip(members, found, strict=True):
            if isinstance(tokens, LooktwiceError):
                common.report(candidates[index], tokens)
                continue
            own = {"query": seen[0] if seen else None, "candidate": tokens}
            shown = tuple(t for t in (own[side] for side in sides) if t is not None)
            pieces = self.prompt.lay_out(query, candidates[index], self.clean)
            key = (pieces, *(t.layout for t in shown))
            if key not in spread:
                spread[key] = self.family.expand_placeholders(self.encode(pieces), [t.layout for t in shown])
            row = spread[key]
            if (problem := self.too_long(row)) is not None:
                common.report(candidates[index], problem)
                continue
            # the last token stays unshared: its hidden state is what the head reads
            begins = row.starts[sides.index("candidate")] if "candidate" in sides else len(row.ids) - 1
            if self.retracer and "candidate.text" in self.prompt.parts:
                begins = min(begins, self._begins(query, candidates[index], row, shown))
            ready.append(Pair(index, row, shown, tuple(sides), begins))
        return ready

    def _begins(self, query: Item, candidate: Item, row: PromptRow, shown: Sequence[VisualTokens]) -> int:
        """Return where the candidate's text begins, independent of the other candidates in the call."""
        begins = len(row.ids) - 1
        for text in ("a", "7"):  # two stand-ins: one alone might begin with the candidate's own first token
            stand_in = self.prompt.lay_out(query, replace(candidate, text=text), self.clean)
            other = self.family.expand_placeholders(self.encode(stand_in), [t.layout for t in shown])
            begins = min(begins, batches.in_common([row, other], begins))
        return begins

    # --- from rows to logits -------------------------------------------------------------------------------------

    def _rows(self, length: int, shared: int) -> int:
        most = memory.rows(self._cost, self.mllm.model.device, length, shared)
        return min(most, self.batch_size or most)

    def _prefix(self, pair: Pair, length: int) -> Any:
        """Return what the first `length` tokens leave in the model's layers; the last few queries' are cached."""
        if length == 0:
            return None
        shown = [t for start, t in zip(pair.row.starts, pair.images, strict=True) if start < length]
        return self._memory.prefix(pair.row.ids[:length].tolist(), shown, lambda: self._run_prefix(pair, length))

    def _run_prefix(self, pair: Pair, length: int) -> Any:
        cache = prefix_cache.blank(self.mllm.model.config.get_text_config())
        batch = self.batch([pair], 0, length)
        self.decode(batch, self.mask(batch, 0), cache)
        return cache

    def run(self, part: Sequence[Pair], length: int, cache: Any) -> Tensor:
        """Return the next-token logits [n, V] of pairs whose first `length` tokens are in `cache`."""
        batch = self.batch(part, length)
        whole = self.retracer is not None and self.retracer.needs_last  # Δ reads every position of the last layer
        short = nullcontext() if whole else only_last(self.family.decoder, batch.last)
        with self.hook_lock, self.watching(batch, part), short:  # hooks sit on the model, which scorers may share
            hidden = self.decode(batch, self.mask(batch, length), prefix_cache.share(cache, len(part)))
        return self.project(hidden[torch.arange(len(part), device=hidden.device), batch.last], part)

    def batch(self, part: Sequence[Pair], start: int, stop: int | None = None) -> Batch:
        """Return the tokens [start, stop) of every pair, padded on the right."""
        return batches.collate(self.mllm.model, self.family, part, start, stop)

    def watching(self, batch: Batch, part: Sequence[Pair]) -> AbstractContextManager[Evidence | None]:
        """Return a context in which `decode` shows these pairs' images once more, if retrace is on."""
        return self.retracer.watching(batch, part) if self.retracer else nullcontext()

    def mask(self, batch: Batch, length: int) -> Any:
        """Return the attention mask of a batch after `length` shared tokens, in the form the family needs."""
        return self.family.mask(
            prefix_cache.distances(length, batch.embeds.shape[1], batch.embeds.device), batch.visual
        )

    def decode(self, batch: Batch, mask: Any, cache: Any) -> Tensor:
        """Return the hidden states [n, C, d] of a batch after the tokens in `cache`."""
        with self.hook_lock:
            out = self.family.decoder(
                inputs_embeds=batch.embeds,
                position_ids=batch.positions,
                attention_mask=mask,
                use_cache=cache is not None,
                **{self.family.cache_argument: cache},
                **batch.extras,
            )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def project(self, hidden: Tensor, part: Sequence[Pair], more: Sequence[Sequence[int]] = ()) -> Tensor:
        """Return logits [n, V] in float32 of last states [n, d]; `more`: the ids each row has written so far."""
        head = self.mllm.model.get_output_embeddings()
        logits: Tensor = head(hidden.to(head.weight.dtype))  # the head may be float32 over a half-precision model
        said = [pair.row.ids for pair in part]  # what the repetition penalty counts as said
        if more:
            said = [torch.cat([ids, torch.tensor(own, dtype=ids.dtype)]) for ids, own in zip(said, more, strict=True)]
        return repetition_penalty.penalise(self.family.finish(logits.float()), said, self.penalty)


def _encode(processor: Any, family: Family, pieces: tuple[Piece, ...]) -> list[int]:
    """Return the token ids of a laid-out pair."""
    return chat.encode(processor, family.rewrite(chat.render(processor, pieces)))
