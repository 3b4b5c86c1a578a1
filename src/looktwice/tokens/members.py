"""One vector in place of several: what pooling, grouping and clustering do with the tokens they put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Reduction = Literal["mean", "nearest", "median"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "nearest", "median")


def reduce_members(values: Tensor, label: NDArray[np.int64], count: int, how: Reduction) -> Tensor:
    """Return [S, count, d]: each label's tokens of `values` [S, T, d] become one; tokens labelled −1 are left out.

    `nearest` is the member nearest to the mean of the first stream, and every further stream (DeepStack level) takes
    the same member. `median` is per dimension, of an even number the lower one, as in the published code. In float32.
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
    """[count] index of the member with the least distance, the first one in a tie."""
    import numpy as np
    import torch

    owners = owner.cpu().numpy()
    order = np.lexsort((distance.cpu().numpy(), owners))
    leads = np.flatnonzero(np.diff(owners[order], prepend=-1))
    return torch.from_numpy(order[leads]).to(distance.device)
