"""Build the approximate index on partitions that are made here, with matrix products of float32.

LanceDB compares float16 vectors with the centroids one number at a time, which is nearly all of its work: 3,000 of
3,700 s of processor time for 10⁷ rows. Lance's own package (`pylance`) takes partitions that others have made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.store.schema import stored_dim, vectors_of
from looktwice.store.segments import COLUMN, NAME, IndexShape, storage_of

if TYPE_CHECKING:
    from looktwice.types import FloatArray

_SAMPLE = 64
"""Rows per partition that partitions are trained on."""

_BATCH = 8192


def build(table: Any, uri: str, shape: IndexShape, dim: int) -> None:
    """Build or replace the index of the items at `uri`, a version that `table` then reads."""
    import lance
    import pyarrow as pa

    items = lance.dataset(uri, storage_options=storage_of(uri))
    centroids = _trained(items, shape.partitions, dim)
    padded = np.pad(centroids, [(0, 0), (0, stored_dim(dim) - dim)]).astype(np.float16)
    with tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(pa.Table.from_batches(_assigned(items, centroids, dim)), folder, max_rows_per_file=2**31)
        items.create_index(
            COLUMN, "IVF_RQ", name=NAME, metric="cosine", replace=True, num_bits=shape.bits,
            num_partitions=shape.partitions, precomputed_partition_dataset=folder,
            ivf_centroids=pa.FixedSizeListArray.from_arrays(pa.array(padded.ravel()), padded.shape[1]),
        )  # fmt: skip
    table.checkout_latest()


def _trained(items: Any, partitions: int, dim: int) -> FloatArray:
    """Return the centroids [partitions, dim] of a sample of rows, as float16 can hold them."""
    import faiss

    rows = items.count_rows()
    offsets = np.random.default_rng(0).choice(rows, min(rows, _SAMPLE * partitions), replace=False)
    sample = _units(items.take(np.sort(offsets).tolist(), columns=[COLUMN]), dim)
    means: Any = faiss.Kmeans(dim, partitions, niter=10)
    means.train(sample)
    return np.asarray(np.reshape(means.centroids, (partitions, dim)).astype(np.float16), np.float32)


def _assigned(items: Any, centroids: FloatArray, dim: int) -> Iterator[Any]:
    """Yield batches with the row ids of all items and the partition of the nearest centroid."""
    import pyarrow as pa

    half = np.einsum("pd,pd->p", centroids, centroids) / 2
    for batch in items.scanner(columns=[COLUMN], with_row_id=True, batch_size=_BATCH).to_batches():
        nearest = np.argmax(_units(batch, dim) @ centroids.T - half, axis=1)
        row_ids = np.array(batch["_rowid"])  # a copy: a column keeps the memory of its whole batch
        yield pa.record_batch({"row_id": row_ids, "partition": nearest.astype(np.uint32)})


def _units(found: Any, dim: int) -> FloatArray:
    rows = vectors_of(found, dim).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
