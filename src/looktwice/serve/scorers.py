"""Put a scorer and an encoder of the library behind a server's queue, without changing what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from looktwice.checked import finite
from looktwice.score import Scorer
from looktwice.score.base import ScorerWrapper, TokenMaker
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import probability
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.serve.device_queue import DeviceQueue
from looktwice.serve.ticket import current
from looktwice.serve.tracing import span
from looktwice.types import SCORED, Encoder, EncoderInfo, FloatArray, Item, PairScores, TokensInfo, VisualTokens

if TYPE_CHECKING:
    import torch


class QueuedScorer(ScorerWrapper):
    """Scores in blocks, each at the current request's turn, and tells the request about every block."""

    def __init__(self, inner: Scorer, queue: DeviceQueue) -> None:
        super().__init__(inner)
        self.queue = queue

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score all candidates, a block at a turn; those of a listwise scorer in one."""
        if not candidates:
            return self.queue.run(lambda: self.inner.score(query, candidates))
        parts: list[tuple[Sequence[int], PairScores]] = []
        done = 0
        while done < len(candidates):
            size = len(candidates) if self.listwise else self.queue.block
            block = candidates[done : done + size]
            scores = self._block(query, block)
            parts.append((range(done, done + len(block)), scores))
            done += len(block)
        if len(parts) == 1:
            return parts[0][1]
        return probability.scatter(len(candidates), parts[0][1].label_logits.shape[1], parts, "missing")

    def _block(self, query: Item, block: Sequence[Item]) -> PairScores:
        with span("looktwice.block", pairs=len(block)):
            scores = self.queue.run(lambda: self.inner.score(query, block), len(block))
        ticket = current.get()
        if ticket is not None and ticket.tell is not None:
            ticket.tell([item.id for item in block], scores)
        return scores

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """Return a scorer of the same model behind the same queue."""
        return QueuedScorer(self.inner.with_prompt(prompt, mode), self.queue)

    def plain(self) -> Scorer:
        """Return the innermost scorer, behind the same queue."""
        return QueuedScorer(self.inner.plain(), self.queue)

    def tokens(self) -> TokenMaker | None:
        """Return the maker of visual tokens, behind the same queue."""
        maker = self.inner.tokens()
        return None if maker is None else _QueuedMaker(maker, self.queue)


class _QueuedMaker:
    def __init__(self, maker: TokenMaker, queue: DeviceQueue) -> None:
        self._maker, self._queue = maker, queue

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return each image's tokens, made on the device's thread."""
        return self._queue.run(lambda: self._maker.visual_tokens(items))

    def tokens_info(self) -> TokensInfo:
        """Return the facts about these tokens."""
        return self._maker.tokens_info()

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        """Return the device and dtype of the model."""
        return self._maker.placement()


class QueuedReranker(MllmReranker):
    """An MllmReranker whose model answers behind a queue."""

    def __init__(self, mllm: str | Scorer | Any, queue: DeviceQueue, **settings: Any) -> None:
        super().__init__(mllm, **settings)
        self.queue = queue
        if not isinstance(self.mllm, str):
            self.mllm = QueuedScorer(self.mllm, queue)

    def score(self, *pairs: Any, **more: Any) -> PairScores | None:
        """Score candidates once the request has a seat; see MllmReranker."""
        self.queue.sit()
        return super().score(*pairs, **more)

    def load_scorer(self, prompt: str) -> Scorer:
        """Load the model on the device's thread, before any block."""
        return QueuedScorer(self.queue.run(lambda: super(QueuedReranker, self).load_scorer(prompt)), self.queue)


class PooledEncoder:
    """An encoder whose work runs on a few threads of its own, beside the device's queue: a first look never waits."""

    def __init__(self, inner: Encoder, pool: ThreadPoolExecutor) -> None:
        self.inner, self.pool = inner, pool

    @property
    def info(self) -> EncoderInfo:
        """Return the encoder's identity."""
        return self.inner.info

    @property
    def for_queries(self) -> PooledEncoder:
        """Return the form of the encoder that encodes queries."""
        return PooledEncoder(getattr(self.inner, "for_queries", self.inner), self.pool)

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return one row per item."""
        return self.pool.submit(self.inner.encode, items).result()


def block_rows(scores: PairScores, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the scores of a block as plain data: id, p, off_mass, entropy, status; unknown numbers are None."""
    return [
        {
            "id": name,
            "p": finite(scores.p[i]) if scores.status[i] in SCORED else None,
            "off_mass": finite(scores.off_mass[i]),
            "entropy": finite(scores.entropy[i]),
            "status": scores.status[i],
        }
        for i, name in enumerate(ids)
    ]


__all__ = ["PooledEncoder", "QueuedReranker", "QueuedScorer", "block_rows"]
