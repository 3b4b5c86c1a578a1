"""Cluster the tokens of an image with k-means (2604.13268, index compression; 70 clusters there).

The distance is Euclidean, as published. FAISS always starts from the same seed, so that the same image gives the same
codes (the published code seeds at random). An image with no more tokens than clusters stays unchanged.
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

SEED = 20260413
ITERATIONS = 20


@dataclass(frozen=True, slots=True)
class Clustering:
    """k-means clusters of an image's tokens: `cluster70`, `cluster70:median`, `cluster32:nearest`…"""

    clusters: int = 70
    reduction: Reduction = "mean"

    word: ClassVar[str] = "cluster"

    def __post_init__(self) -> None:
        if not 1 <= self.clusters <= 65_535:
            raise UsageError(
                f"cluster{self.clusters}: the number of clusters must be from 1 to 65,535; choose another."
            )

    def __str__(self) -> str:
        return f"cluster{self.clusters}{'' if self.reduction == 'mean' else ':' + self.reduction}"

    def most(self, tokens: int) -> int:
        """Return how many clusters `tokens` tokens make at most (an image of equal tokens makes one)."""
        return min(self.clusters, tokens)

    def assign(self, rows: Tensor) -> NDArray[np.int64]:
        """Return [T] cluster numbers for `rows` [T, d], counted from 0 without gaps."""
        import faiss
        import numpy as np

        points = np.ascontiguousarray(rows.float().cpu().numpy())
        if self.clusters >= len(points):
            return np.arange(len(points))
        kmeans = faiss.Kmeans(points.shape[1], self.clusters, niter=ITERATIONS, seed=SEED, min_points_per_centroid=1)
        kmeans.cp.max_points_per_centroid = len(points)  # never a subsample: an image's tokens are few
        kmeans.train(points)
        nearest = kmeans.index.search(points, 1)[1][:, 0]
        return np.unique(nearest, return_inverse=True)[1].astype(np.int64)
