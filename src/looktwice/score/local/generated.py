"""Score pairs by the number that the model writes, or by the expected value of that number.

`written` (2602.22278, fine stage): the most likely text, token by token, until the model ends it. Text that is not
exactly one number from 0 to 1 is a parse error without a score. `written-expected`: P("1") + P("0") · E[0.d], with E
over all digit tokens after "0." and both probabilities renormalised over "0" and "1". Nothing is parsed and no
ties arise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looktwice.errors import UsageError
from looktwice.score.base import Scorer, ScorerWrapper
from looktwice.score.local import common, prefix_cache
from looktwice.score.local.engine import Engine
from looktwice.score.local.rows import Batch, Pair
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import labels, modes, probability
from looktwice.types import Item, PairScores

UNSEEN = 1 << 40  # a position after everything, so that no mask shows it
MOST = 16  # tokens of an answer; a longer number is not one that the prompt asks for
_NUMBER = re.compile(r"\s*(?:0(?:\.[0-9]*)?|\.[0-9]+|1(?:\.0*)?)\s*", re.ASCII)
_BEGINNING = re.compile(r"\s*(?:[01]?\.[0-9]*|[01])?\s*", re.ASCII)


def parse(text: str) -> float | None:
    """Return the number from 0 to 1 that `text` is, or None for anything else, such as a number with a unit.

    >>> [parse(t) for t in ("0.85", " 1.0\\n", ".5", "85%", "1.2", "0,5", "Answer: 0.5", "")]
    [0.85, 1.0, 0.5, None, None, None, None, None]
    """
    return float(text.strip()) if _NUMBER.fullmatch(text) else None


class GenerationState:
    """Pairs of one batch whose answers grow token by token; `logits` [n, V] are those of the next token.

    `at` [n, K] is the position of every key in its row, `ends` [n] the position of the first token written.
    """

    def __init__(self, engine: Engine, part: Sequence[Pair], length: int, shared: Any) -> None:
        self.engine = engine
        self.part = part
        self.batch = engine.batch(part, length)
        n, new = self.batch.embeds.shape[:2]
        device = self.batch.embeds.device
        self.rows = torch.arange(n, device=device)
        self.cache = prefix_cache.grow(shared, n, engine.mllm.model.config.get_text_config(), self.batch.last)
        self.written: list[list[int]] = [[] for _ in part]
        self.ends = length + self.batch.last + 1
        column = torch.arange(length + new, device=device)
        self.at = torch.where(column < self.ends[:, None], column, UNSEEN)  # hides the padding on the right
        with (
            engine.hook_lock,
            engine.watching(self.batch, part) as self.evidence,
            engine.family.ignoring_padding(self.batch),
        ):
            hidden = engine.decode(self.batch, engine.mask(self.batch, length), self.cache)
        self.logits = engine.project(hidden[self.rows, self.batch.last], part)

    def write(self, ids: Tensor) -> Tensor:
        """Append `ids` [n, t] to every row; return the logits after the last of them."""
        batch, engine = self.batch, self.engine
        t = ids.shape[1]
        begin = batch.positions[..., self.rows, batch.last] + 1 + len(self.written[0])
        steps = torch.arange(t, device=ids.device)
        places = self.ends[:, None] + len(self.written[0]) + steps
        self.at = torch.cat([self.at, places], dim=1)
        embeds = engine.mllm.model.get_input_embeddings()(ids)
        positions = begin[..., None] + steps
        for row, new in zip(self.written, ids.tolist(), strict=True):
            row += new
        last, nothing = torch.full_like(ids[:, 0], t - 1), torch.zeros_like(ids, dtype=torch.bool)
        step = Batch(embeds, nothing, positions, last, engine.family.extras(ids, nothing, ()))
        mask = engine.family.mask((places[:, :, None] - self.at[:, None])[:, None], nothing)
        with engine.hook_lock, self._watching(embeds):
            hidden = engine.decode(step, mask, self.cache)
        self.logits = engine.project(hidden[:, -1], self.part, self.written)
        return self.logits

    def _watching(self, embeds: Tensor) -> AbstractContextManager[None]:
        retracer = self.engine.retracer
        if retracer is None or self.evidence is None:
            return nullcontext()
        return retracer.acting(retracer.later(self.evidence, embeds))


class GeneratedScorer(ScorerWrapper):
    """Scores pairs by the text the model writes, on the fast path; `mode` is written or written-expected.

    Raises UsageError if the tokenizer has no single tokens for "0", "1" and ".".
    """

    inner: Engine

    def __init__(self, inner: Engine, mode: str) -> None:
        super().__init__(inner)
        self.mode = mode
        self._tokens  # noqa: B018  # an unsuitable tokenizer is refused before anything is scored

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """See Scorer. `label_logits` are those of "0" and "1"; text that is not a number has "parse_error"."""
        fit = common.showable(self.inner.prompt, query, candidates)
        parts: list[tuple[Sequence[int], PairScores]] = [(fit, probability.blank(len(fit), 2, "failed"))]
        run = self._expect if self.mode == modes.WRITTEN_EXPECTED else self._write
        parts += self.inner.each(query, candidates, run, fit)
        return probability.scatter(len(candidates), 2, parts, "missing")

    def settings(self) -> Mapping[str, Any]:
        """See Scorer."""
        return {**self.inner.settings(), "mode": self.mode}

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """See Scorer. A mode that reads one distribution writes nothing: the engine itself is its scorer."""
        mode = mode or self.mode
        if mode in modes.READ_AT_ONCE:
            return self.inner.with_prompt(prompt, mode)
        return GeneratedScorer(self.inner.with_prompt(prompt), mode)

    @property
    def _tokenizer(self) -> Any:
        return self.inner.mllm.processor.tokenizer

    # --- one batch ------------------------------------------------------------------------------------------------

    def _write(self, part: Sequence[Pair], length: int, shared: Any) -> PairScores:
        texts, first, entropy = self._answers(part, length, shared)
        scores = self._read(first)
        value = np.array([np.nan if (number := parse(text)) is None else number for text in texts], dtype=np.float32)
        ok = np.array([status == "ok" for status in scores.status])
        return modes.unparsed(_with(scores, np.where(ok, value, np.nan), np.where(ok, entropy, np.nan)))

    def _answers(self, part: Sequence[Pair], length: int, shared: Any) -> tuple[list[str], Tensor, Any]:
        """Return texts, logits of the first token, and mean entropy of the written tokens; cut texts that never end."""
        answer = GenerationState(self.inner, part, length, shared)
        first, tokenizer = answer.logits, self._tokenizer
        ended, texts = [False] * len(part), [""] * len(part)
        entropies: list[list[float]] = [[] for _ in part]
        for _ in range(MOST):
            chosen = answer.logits.argmax(-1)
            spread = torch.special.entr(probability.wide(answer.logits).softmax(-1)).sum(-1).tolist()
            for row, token in enumerate(chosen.tolist()):
                if not ended[row]:
                    entropies[row].append(spread[row])
                    ended[row] = token in self._ends
                    texts[row] = texts[row] if ended[row] else tokenizer.decode([*answer.written[row], token])
                    ended[row] = ended[row] or not _BEGINNING.fullmatch(texts[row])
            if all(ended):
                break
            answer.write(chosen[:, None])
        texts = [text if done else f"{text}…" for text, done in zip(texts, ended, strict=True)]
        return texts, first, np.array([np.mean(values) for values in entropies], dtype=np.float32)

    def _expect(self, part: Sequence[Pair], length: int, shared: Any) -> PairScores:
        answer = GenerationState(self.inner, part, length, shared)
        zero, one, point = self._tokens
        first = answer.logits
        scores = self._read(first)
        ids = torch.tensor([[zero, point]], device=first.device).expand(len(part), -1)
        digits, values = self._digits
        after = probability.wide(answer.write(ids)[:, digits.to(first.device)]).softmax(-1)
        decimal = after @ values.to(after)
        units = probability.wide(first[:, [zero, one]]).softmax(-1)
        value = (units[:, 1] + units[:, 0] * decimal).cpu().numpy()
        ok = np.array([status == "ok" for status in scores.status])
        return _with(scores, np.where(ok, value, np.nan), scores.entropy)

    def _read(self, logits: Tensor) -> PairScores:
        zero, one, _ = self._tokens
        return probability.read(logits, probability.LabelIds(((zero,), (one,)), (0.0, 1.0)))

    @cached_property
    def _tokens(self) -> tuple[int, int, int]:
        found = [labels.single_token(text, self._tokenizer) for text in ("0", "1", ".")]
        if None in found:
            raise UsageError(
                "This model's tokenizer has no single tokens for 0, 1 and the decimal point, which written numbers "
                "need; use the mode p-label."
            )
        zero, one, point = (int(token) for token in found if token is not None)
        return zero, one, point

    @cached_property
    def _digits(self) -> tuple[Tensor, Tensor]:
        """Return the ids of all tokens made of digits alone, and the decimals that they write."""
        vocabulary = self._tokenizer.get_vocab()
        numbers = {i: int(token) / 10 ** len(token) for token, i in vocabulary.items() if re.fullmatch("[0-9]+", token)}
        return torch.tensor(list(numbers)), torch.tensor(list(numbers.values()))

    @cached_property
    def _ends(self) -> frozenset[int]:
        own = getattr(getattr(self.inner.mllm.model, "generation_config", None), "eos_token_id", None)
        ends = [*(own if isinstance(own, list) else [own]), self._tokenizer.eos_token_id]
        return frozenset(end for end in ends if end is not None)


def _with(scores: PairScores, p: Any, entropy: Any) -> PairScores:
    return PairScores(
        p.astype(np.float32), scores.label_logits, entropy, scores.off_mass, scores.argmax_id, scores.status
    )
