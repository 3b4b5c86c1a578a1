"""Group the most similar tokens of an image greedily (2604.13268, index compression).

A group starts with the most similar pair of ungrouped tokens and takes the `size` − 2 tokens most similar to the pair
(sum of both cosines). The published code masks the diagonal with 0, so that a token whose similarities are all negative
is paired with itself. Here a token is never its own partner, and a last token alone stays alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from looktwice.codecs.members import Reduction
from looktwice.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of similar tokens: `group4`, `group4:nearest`, `group8:median`…"""

    size: int = 4
    reduction: Reduction = "mean"

    word: ClassVar[str] = "group"

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 1024:
            raise UsageError(f"group{self.size}: the size of a group must be from 2 to 1,024 tokens; choose another.")

    def __str__(self) -> str:
        return f"group{self.size}{'' if self.reduction == 'mean' else ':' + self.reduction}"

    def most(self, tokens: int) -> int:
        """Return how many groups `tokens` tokens make."""
        return -(-tokens // self.size)

    def assign(self, rows: Tensor) -> NDArray[np.int64]:
        """Return [T] group numbers for `rows` [T, d], counted in the order in which the groups are made."""
        import torch

        unit = torch.nn.functional.normalize(rows.float(), dim=1)
        similarity = (unit @ unit.T).cpu().numpy()
        return greedy_groups(similarity, self.size)


def greedy_groups(similarity: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """Return [T] group numbers from a symmetric [T, T] matrix, which is overwritten. Ties go to the lower index."""
    import numpy as np

    np.fill_diagonal(similarity, -np.inf)
    group = np.full(len(similarity), -1, dtype=np.int64)
    partner, best = similarity.argmax(1), similarity.max(1)
    for number in range(-(-len(similarity) // size)):
        first = int(best.argmax())
        if best[first] == -np.inf:  # one token is left
            group[group < 0] = number
            break
        pair = [first, int(partner[first])]
        nearness = similarity[pair].sum(0)  # tokens already in a group, and the pair itself, are at −inf
        more = np.argsort(-nearness, kind="stable")[: size - 2]
        members = np.concatenate([pair, more[nearness[more] > -np.inf]]).astype(np.int64)
        group[members] = number
        _take_out(similarity, members, partner, best)
    return group


def _take_out(
    similarity: NDArray[np.float32], members: NDArray[np.int64], partner: NDArray[np.int64], best: NDArray[np.float32]
) -> None:
    """Remove `members`, and search again only for tokens that lose their partner: T² work in all instead of T³."""
    import numpy as np

    similarity[members] = -np.inf
    similarity[:, members] = -np.inf
    best[members] = -np.inf
    widowed = np.flatnonzero(np.isin(partner, members) & (best > -np.inf))
    partner[widowed] = similarity[widowed].argmax(1)
    best[widowed] = similarity[widowed, partner[widowed]]
