"""Stack tokens into one tensor, and reduce several to one vector, as pooling, grouping and clustering need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from looktwice.codecs.layout import blocks, token_count
from looktwice.errors import MediaError, ModelError, UsageError
from looktwice.types import VisualTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Reduction = Literal["mean", "nearest", "median"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "nearest", "median")


def stack_streams(tokens: VisualTokens) -> Tensor:
    """Return [S, T, d]: features and levels, checked against the layout and for finite numbers.

    Raises ModelError for shapes that disagree, UsageError for tokens that a codec has already thinned out, MediaError
    for NaN and infinity.
    """
    import torch

    features, levels = tokens.features, tokens.levels
    if features.ndim != 2 or len(features) != token_count(tokens.layout) or not len(features):
        raise ModelError(
            f"The model gave tokens of shape {tuple(features.shape)} for a layout of {token_count(tokens.layout)}; "
            "choose another model."
        )
    if any(block.grid is not None for block in blocks(tokens.layout)):
        raise UsageError("These tokens have been through a codec that skips tokens; give it the model's own tokens.")
    if levels is not None and levels.shape[1:] != features.shape:
        raise ModelError(
            f"Levels of shape {tuple(levels.shape)} do not match features {tuple(features.shape)}; choose another "
            "model."
        )
    values = features[None] if levels is None else torch.cat([features[None], levels])
    if not values.isfinite().all():
        raise MediaError("non-finite", "the model's vision tower gave NaN or infinity for this image")
    return values


def reduce_members(values: Tensor, label: NDArray[np.int64], count: int, how: Reduction) -> Tensor:
    """Reduce each label's tokens of `values` [S, T, d] to one: [S, count, d]; tokens labelled −1 are left out.

    `nearest` is the member nearest to the mean of the first stream; every further stream (DeepStack level) takes the
    same member. `median` is per dimension, the lower one of an even number, as in the published code. In float32.
    """
    import numpy as np
    import torch

    member = torch.from_numpy(np.flatnonzero(label >= 0)).to(values.device)
    owner = torch.from_numpy(label[label >= 0]).to(values.device)
    values = values[:, member].float()
    if how == "median":
        order = torch.argsort(owner, stable=True)
        sizes = torch.bincount(owner, minlength=count).tolist()
        return torch.stack([part.median(dim=1).values for part in torch.split(values[:, order], sizes, dim=1)], dim=1)
    mean = _means(values, owner, count)
    if how == "mean":
        return mean
    distance = (values[0] - mean[0][owner]).square().sum(-1)
    return values[:, _nearest(distance, owner)]


def _means(values: Tensor, owner: Tensor, count: int) -> Tensor:
    import torch

    sums = values.new_zeros(values.shape[0], count, values.shape[2]).index_add_(1, owner, values)
    return sums / torch.bincount(owner, minlength=count).clamp(min=1).to(sums)[None, :, None]


def _nearest(distance: Tensor, owner: Tensor) -> Tensor:
    """Return [count]: the index of the member with the least distance, the first one in a tie."""
    import numpy as np
    import torch

    owners = owner.cpu().numpy()
    order = np.lexsort((distance.cpu().numpy(), owners))
    leads = np.flatnonzero(np.diff(owners[order], prepend=-1))
    return torch.from_numpy(order[leads]).to(distance.device)
