"""Define the seam of the second stage: the methods of every scorer, so that callers never test for one.

A new scorer subclasses `Scorer` and defines `score`; everything else has a default. `Scorer.of` adapts objects written
before the class existed: any object with a `score` method. Loads neither torch nor NumPy.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from looktwice.errors import UsageError
from looktwice.types import Item, PairScores, TokensInfo, VisualTokens

if TYPE_CHECKING:
    import torch

    from looktwice.score.prompting.prompt import Prompt


@runtime_checkable
class TokenMaker(Protocol):
    """Turns images into the visual tokens that a table stores."""

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return each image's tokens as the model's own vision tower makes them; raise if one cannot be used."""
        ...

    def tokens_info(self) -> TokensInfo:
        """Return the facts about these tokens that a table must store."""
        ...

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        """Return the device and dtype the model takes tokens in; dtype None: unchanged."""
        ...


class Scorer(ABC):
    """Scores one query against candidates by showing a model both.

    `listwise` True: scores compare the candidates of one call only. All candidates must then come in one call, and no
    score is cached.
    """

    listwise: bool = False

    @abstractmethod
    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; permuting candidates permutes scores."""

    def score_parts(self, query: Item, candidates: Sequence[Item]) -> Iterator[tuple[Sequence[int], PairScores]]:
        """Yield scores as they are made, with the indices of their candidates; by default all at once.

        A scorer that waits for a server overrides it, so that a cache keeps each score as soon as it is there.
        """
        yield range(len(candidates)), self.score(query, candidates)

    def score_many(self, requests: Sequence[tuple[Item, Sequence[Item]]]) -> list[PairScores]:
        """Score several (query, candidates) requests, in order. Override it to batch across queries."""
        return [self.score(query, candidates) for query, candidates in requests]

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """Return a scorer of the same model that asks another prompt, and reads it in another score mode if given.

        Raises UsageError if this scorer can ask only one question.
        """
        raise UsageError(
            f"The scorer {self._name} can ask only one question; use the ties default or coarse, which ask no second "
            "question, or define its with_prompt method."
        )

    def settings(self) -> Mapping[str, Any]:
        """Return settings for a run's manifest: mllm, revision, prompt, prompt_hash, dtype, device, path, and more."""
        return {"mllm": self._name}

    def stats(self) -> Mapping[str, Any]:
        """Return the counts made while scoring."""
        return {}

    def tokens(self) -> TokenMaker | None:
        """Return the maker of visual tokens for this scorer; None if it reads images only."""
        return None

    def plain(self) -> Scorer:
        """Return the scorer without the wrappers that `score_mode` and `prior` add."""
        return self

    @property
    def _name(self) -> str:
        return type(self).__name__

    @staticmethod
    def of(obj: object) -> Scorer:
        """Return a Scorer unchanged; adapt any other object that has a `score` method. Raises UsageError for others."""
        if isinstance(obj, Scorer):
            return obj
        if not callable(getattr(obj, "score", None)):
            raise UsageError(f"{type(obj).__name__} is not a scorer; subclass looktwice.Scorer and define score.")
        return _Adapted(obj)

    # --- old names, for one release ------------------------------------------------------------------------------

    def describe(self) -> Mapping[str, Any]:
        """Return `settings()`; the old name."""
        warnings.warn("Scorer.describe is now Scorer.settings.", DeprecationWarning, stacklevel=2)
        return self.settings()

    def statistics(self) -> Mapping[str, Any]:
        """Return `stats()`; the old name."""
        warnings.warn("Scorer.statistics is now Scorer.stats.", DeprecationWarning, stacklevel=2)
        return self.stats()


class ScorerWrapper(Scorer):
    """Wraps another scorer, `inner`; a subclass defines `score`, everything else is delegated."""

    def __init__(self, inner: Scorer) -> None:
        self.inner = inner
        self.listwise = inner.listwise

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """Return a copy that wraps the inner scorer with this prompt and mode."""
        other = copy.copy(self)
        other.inner = self.inner.with_prompt(prompt, mode)
        return other

    def settings(self) -> Mapping[str, Any]:
        """Return the inner scorer's settings."""
        return self.inner.settings()

    def stats(self) -> Mapping[str, Any]:
        """Return the inner scorer's counts."""
        return self.inner.stats()

    def tokens(self) -> TokenMaker | None:
        """Return the inner scorer's maker of visual tokens."""
        return self.inner.tokens()

    def plain(self) -> Scorer:
        """Return the innermost scorer."""
        return self.inner.plain()


class _Adapted(Scorer):
    """An object with a `score` method and perhaps other methods of Scorer, under today's or older names."""

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.listwise = bool(getattr(obj, "listwise", False))

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        from looktwice.score.readout.probability import checked

        return checked(self.obj.score(query, candidates), len(candidates), self._name)

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        if not hasattr(self.obj, "with_prompt"):
            return super().with_prompt(prompt, mode)
        return Scorer.of(self.obj.with_prompt(prompt) if mode is None else self.obj.with_prompt(prompt, mode))

    def settings(self) -> Mapping[str, Any]:
        return self._first_of(super().settings(), "settings", "describe")

    def stats(self) -> Mapping[str, Any]:
        return self._first_of({}, "stats", "statistics")

    def tokens(self) -> TokenMaker | None:
        if hasattr(self.obj, "tokens"):
            maker: TokenMaker | None = self.obj.tokens()
            return maker
        return _AdaptedTokens(self.obj) if hasattr(self.obj, "visual_tokens") else None

    def plain(self) -> Scorer:
        inner = self.obj.plain() if hasattr(self.obj, "plain") else getattr(self.obj, "inner", self.obj)
        return self if inner is self.obj else Scorer.of(inner)

    @property
    def _name(self) -> str:
        return type(self.obj).__name__

    def _first_of(self, default: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
        found = next((getattr(self.obj, name) for name in names if hasattr(self.obj, name)), None)
        return default if found is None else found()


class _AdaptedTokens:
    """The visual tokens of an object that has `visual_tokens` and `tokens_info`, and perhaps a loaded `mllm`."""

    def __init__(self, obj: Any) -> None:
        self.visual_tokens = obj.visual_tokens
        self.tokens_info = obj.tokens_info
        self._model = getattr(getattr(obj, "mllm", None), "model", None)

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        return ("cpu", None) if self._model is None else (self._model.device, self._model.dtype)
