"""Divide the model's answer without evidence out of its answer (contextual calibration, Zhao et al., ICML 2021).

The result is p(label) / p(label | nothing to see), renormalised over the labels. One side of the pair is replaced: an
image by a grey field, text by "N/A".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from looktwice.errors import UsageError
from looktwice.score.base import Scorer, ScorerWrapper
from looktwice.score.local.engine import Engine
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting.prompt import Prompt, parts_of
from looktwice.score.readout import modes
from looktwice.score.readout.probability import expected_value
from looktwice.types import Item, PairScores, has_words

GREY, SIDE, WORDS = (128, 128, 128), 224, "N/A"


class PriorScorer(ScorerWrapper):
    """Divides the prior of one side out of another scorer's answers.

    "query" costs one more pair per candidate; "candidate" costs one per call and kind (image, text or both) of
    candidate, and the second look makes one call per chunk.

    Takes the mode p-label only, because the others do not read labels.
    """

    inner: Engine | ReferenceScorer

    def __init__(self, inner: Engine | ReferenceScorer, side: str) -> None:
        super().__init__(inner)
        self.side = side
        if self.inner.mode != modes.P_LABEL:
            raise UsageError(
                f"A prior needs the mode {modes.P_LABEL}, not {self.inner.mode}; leave out the prior (--prior) or the "
                "mode (--score-mode)."
            )

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """See Scorer. Candidates whose prior cannot be scored are "failed"."""
        scores = self.inner.score(query, candidates)
        if self.side == "query":
            prior = self.inner.score(empty(query), candidates).label_logits
        else:
            kinds = [frozenset(parts_of("candidate", candidate)) for candidate in candidates]
            known = {kind: candidates[i] for i, kind in enumerate(kinds)}
            asked = list(known)
            found = self.inner.score(query, [empty(known[kind]) for kind in asked]).label_logits
            prior = found[[asked.index(kind) for kind in kinds]] if kinds else found
        return divided(scores, prior, self.inner.labels.values)

    def settings(self) -> Mapping[str, Any]:
        """See Scorer."""
        return {**self.inner.settings(), "prior": self.side}

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """See Scorer. Raises UsageError for a mode that does not read labels."""
        return PriorScorer(self.inner.with_prompt(prompt, mode), self.side)


def empty(item: Item) -> Item:
    """Return an item of the same kind without content."""
    from PIL import Image

    image = Image.new("RGB", (SIDE, SIDE), GREY) if item.image is not None or item.tokens is not None else None
    return Item(f"{item.id} (empty)", image, WORDS if has_words(item.text) else None)


def divided(scores: PairScores, prior: Any, values: Sequence[float]) -> PairScores:
    """Subtract the label logits `prior` [n, l] from those of `scores`; rows with a non-finite prior are "failed"."""
    fair = scores.label_logits - (prior - _log_sum(prior))
    ok = np.isfinite(fair).all(-1) & np.array([status == "ok" for status in scores.status], dtype=bool)
    p = np.where(ok, expected_value(np.where(ok[:, None], fair, 0.0).astype(np.float64), values), np.nan)
    status = tuple("failed" if s == "ok" and not good else s for s, good in zip(scores.status, ok, strict=True))
    logits = np.where(ok[:, None], fair, np.nan).astype(np.float32)
    return replace(scores, p=p.astype(np.float32), label_logits=logits, status=status)


def _log_sum(logits: Any) -> Any:
    top = logits.max(-1, keepdims=True)
    return top + np.log(np.exp(logits - top).sum(-1, keepdims=True))
