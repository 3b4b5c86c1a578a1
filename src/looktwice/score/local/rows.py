"""Hold pairs as rows of tokens, and rows as batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from looktwice.types import VisualTokens

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One pair as a row of T tokens.

    `ids` [T] (placeholders where visual tokens go); `visual` [T] and `newline` [T] say which; `positions` [axes, T];
    `starts`: where each image begins.
    """

    ids: Tensor
    visual: Tensor
    newline: Tensor
    positions: Tensor
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair ready to run: the candidate's index in the call, its row, and its images in the row's order.

    `sides` names the side of each image. `begins` is where the candidate begins: only tokens before it may be shared.
    """

    index: int
    row: PromptRow
    images: tuple[VisualTokens, ...]
    sides: tuple[str, ...]
    begins: int


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows of C new tokens from token `start` on.

    `embeds` [n, C, d], `visual` [n, C], `positions` [(axes,) n, C], `last` [n].
    """

    embeds: Tensor
    visual: Tensor
    positions: Tensor
    last: Tensor
    extras: Mapping[str, Any]
    start: int = 0
