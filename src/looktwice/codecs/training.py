"""Train codebooks of product quantisers on a sample of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from looktwice.codecs.codebook import Codebook
from looktwice.codecs.pq import PQ
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

MOST_TOKENS = 65_536
"""FAISS uses no more than 256 tokens per centroid of an 8-bit code."""
FEW_TOKENS = 10_000
"""A codebook trained on fewer tokens than this comes with a warning."""
LEAST_ENERGY = 1e-7
"""Of the strongest dimension's; float32 knows no smaller ones."""


def train_codebook(quantiser: PQ, sample: Tensor, *, seed: int = 0) -> Codebook:
    """Train one codebook per stream on `sample` [S, N, d], with N at least 2^bits tokens.

    Raises UsageError for too few tokens and Mismatch for a width that does not divide. The same sample and seed give
    the same codebook on the same machine. FAISS answers Ctrl-C within a k-means iteration.
    """
    import torch

    streams, tokens, dim = sample.shape
    quantiser.sub_vectors(dim)
    if tokens < 2**quantiser.bits:
        fits = f"; {quantiser} needs {2**quantiser.bits}"
        raise UsageError(f"{tokens} tokens are too few to train on{fits}: index more items, use fewer bits, or int8.")
    parts = [_train_one(quantiser, sample[stream].float().cpu(), seed) for stream in range(streams)]
    rotations = [rotation for _, rotation in parts if rotation is not None]
    return Codebook(
        str(quantiser),
        torch.stack([centroids for centroids, _ in parts]),
        torch.stack(rotations) if rotations else None,
        {"tokens": tokens, "seed": seed},
    )


def _train_one(quantiser: PQ, rows: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
    import faiss
    import torch

    rotation = _rotation_of(quantiser, rows) if quantiser.projected else None
    rows = rows if rotation is None else rows @ rotation.T
    dim, count = rows.shape[1], quantiser.sub_vectors(rows.shape[1])
    trained = faiss.ProductQuantizer(dim, count, quantiser.bits)
    trained.cp.seed = seed
    trained.cp.min_points_per_centroid = 1  # FAISS warns about few tokens on stdout; our own warning takes its place
    trained.train(rows.contiguous().numpy())
    centroids = torch.from_numpy(faiss.vector_to_array(trained.centroids)).view(count, 2**quantiser.bits, dim // count)
    return centroids, rotation


def _rotation_of(quantiser: PQ, rows: Tensor) -> Tensor:
    """Return [kept, d]: the principal directions of `rows`, strongest first; for OPQ in the order of `_balanced`."""
    import torch

    kept = quantiser.late or rows.shape[1]
    energies, directions = torch.linalg.eigh(rows.T @ rows)
    energies, directions = energies[-kept:].flip(0), directions[:, -kept:].flip(1).T
    order = _balanced(energies, quantiser.sub_vectors(rows.shape[1])) if quantiser.rotated else range(kept)
    ordered: Tensor = directions[list(order)].contiguous()
    return ordered


def _balanced(energies: Tensor, count: int) -> list[int]:
    """Return an order of dimensions that cuts into `count` sub-vectors with products of energies as equal as can be.

    Each dimension, strongest first, goes to the sub-vector with room whose product is the smallest so far. This is the
    eigenvalue allocation of Ge et al.; on visual tokens it leaves a seventh of the error that FAISS's search for a
    rotation leaves, which begins at random (docs/lab/codecs.md).
    """
    shares = (energies / energies[0].clamp_min(LEAST_ENERGY)).clamp_min(LEAST_ENERGY).div(LEAST_ENERGY).log().tolist()
    members: list[list[int]] = [[] for _ in range(count)]
    products = [0.0] * count
    for dimension, share in enumerate(shares):
        room = [k for k in range(count) if len(members[k]) < len(shares) // count]
        least = min(room, key=lambda k: products[k])
        members[least].append(dimension)
        products[least] += share
    return [dimension for part in members for dimension in part]
