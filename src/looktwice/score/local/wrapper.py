"""What scorers that build on another one have in common: everything but the score is the inner one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.score.local.mllm import Mllm, TokensInfo
from looktwice.score.prompting.prompt import Prompt
from looktwice.types import Item, VisualTokens


class Around:
    """A scorer around an Engine or a Reference in `inner`."""

    inner: Any

    @property
    def mllm(self) -> Mllm:
        """The loaded model."""
        mllm: Mllm = self.inner.mllm
        return mllm

    @property
    def prompt(self) -> Prompt:
        """The inner scorer's prompt."""
        prompt: Prompt = self.inner.prompt
        return prompt

    def statistics(self) -> Mapping[str, Any]:
        """What was counted on the way."""
        counted: Mapping[str, Any] = self.inner.statistics()
        return counted


class AroundEngine(Around):
    """One that has visual tokens too, as a Reference has not."""

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """See Engine."""
        tokens: list[VisualTokens] = self.inner.visual_tokens(items)
        return tokens

    def tokens_info(self) -> TokensInfo:
        """See Engine."""
        info: TokensInfo = self.inner.tokens_info()
        return info
