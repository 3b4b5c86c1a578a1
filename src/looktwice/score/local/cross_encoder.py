"""Score pairs with a trained re-ranker of sentence-transformers by name: `rerank:NAME`. Needs the extra `st`.

Such a model was trained to rank. It has a question of its own, so the prompt only says which parts it is shown. p is
the sigmoid of its score, whatever activation its file names: that keeps the order and lies in [0, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from looktwice.errors import ModelError, UsageError, first_line
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.local.common import showable
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt, showing
from looktwice.score.readout.probability import assemble, scatter
from looktwice.types import Item, PairScores

PREFIX = "rerank:"
BATCH = 16
HERE = {"device", "dtype", "revision", "batch_size", "cache_bytes", "remote"}
"""Settings of ScorerConfig that this scorer heeds; the others are refused."""


def load(name: str, prompt: Prompt, config: ScorerConfig) -> Scorer:
    """Return the scorer of `rerank:NAME`.

    Raises UsageError for settings that it cannot heed, code of its own or more than one output, MissingDependency
    without sentence-transformers, ModelError for unreadable weights.
    """
    if unused := sorted(config.changed().keys() - HERE):
        raise UsageError(f"{name} is a trained re-ranker with a question of its own; leave out {', '.join(unused)}.")
    from looktwice.models import checkpoints
    from looktwice.models.device import place
    from looktwice.models.sentence import read

    checkpoint = checkpoints.resolve(name.removeprefix(PREFIX), config.revision, nested=True)
    model = read(checkpoint, place(config.device, config.dtype), "CrossEncoder", name)
    if model.num_labels != 1:
        raise UsageError(f"{name} gives {model.num_labels} numbers for a pair; choose a re-ranker, which gives one.")
    return CrossEncoderScorer(model, f"{PREFIX}{checkpoint.name}", checkpoint.revision, prompt, config.batch_size)


class CrossEncoderScorer(Scorer):
    """A CrossEncoder of sentence-transformers with one output."""

    def __init__(self, model: Any, name: str, revision: str, prompt: Prompt, batch_size: int | None = None) -> None:
        self.model, self.name, self.revision, self.prompt = model, name, revision, prompt
        self.batch_size = batch_size or BATCH

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see Scorer."""
        fit = showable(self.prompt, query, candidates)
        asked = _parts(showing(query, self.prompt, "query"))
        pairs = [[asked, _parts(showing(candidates[i], self.prompt, "candidate"))] for i in fit]
        if not pairs:
            return scatter(len(candidates), 2, [], "missing")
        return scatter(len(candidates), 2, [(fit, _as_scores(self._logits(pairs)))], "missing")

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> CrossEncoderScorer:
        """Return a scorer for pairs of another kind. Raises UsageError for a second question."""
        if mode is not None:
            raise UsageError(f"{self.name} can ask only one question; use --ties default or coarse.")
        other = copy.copy(self)
        other.prompt = built_in.get(prompt)
        return other

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {
            "mllm": self.name,
            "revision": self.revision,
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "path": "sentence-transformers",
        }

    def _logits(self, pairs: list[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        import torch

        try:
            found = self.model.predict(
                pairs, batch_size=self.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
        except (AttributeError, TypeError, LookupError, ValueError, ImportError) as error:
            # how sentence-transformers refuses what a model cannot read
            raise ModelError(
                f"{self.name} cannot read these pairs ({first_line(error)}); choose a re-ranker that reads them."
            ) from error
        return np.asarray(found, np.float64)


def _parts(item: Item) -> dict[str, Any]:
    """Return an item with its types named, so that no text is taken for the address of an image."""
    return {name: part for name, part in (("image", item.image), ("text", item.text)) if part is not None}


def _as_scores(logits: np.ndarray[Any, np.dtype[np.float64]]) -> PairScores:
    unknown = np.full(len(logits), np.nan)
    rows = np.stack([np.zeros(len(logits)), logits], axis=1)
    return assemble(rows, unknown, unknown, np.full(len(logits), -1), (0.0, 1.0))
