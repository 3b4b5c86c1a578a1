"""Build the approximate index in segments: others make one for some data files each, and this process commits them.

All segments share their partitions and one rotation; segments with rotations of their own would compare codes that
mean different things. LanceDB builds whole indexes only, so this takes Lance's own package (`pylance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeAlias

from looktwice import buckets

Make: TypeAlias = Callable[[], Callable[[int], Any]]
Spread: TypeAlias = Callable[[Make, Iterable[int]], Iterator[Any]]
"""Calls what `Make` returns on every item, in other processes, such as `Cluster.map`."""

NAME, COLUMN = "vector_idx", "vector"
_SAMPLE = 256
"""Rows per partition that partitions are trained on, as LanceDB does."""


@dataclass(frozen=True, slots=True)
class IndexShape:
    """The number of partitions, and of bits per dimension."""

    partitions: int
    bits: int


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """What a worker needs to make segments; plain data. `centroids` are those of the partitions."""

    uri: str
    version: int
    shape: IndexShape
    centroids: Any
    rotation: str
    storage: Mapping[str, str] = field(default_factory=dict)

    def __call__(self) -> Callable[[int], Any]:
        """Open the items, in a worker, and return its work: the segment of one data file."""
        import lance

        items = lance.dataset(self.uri, version=self.version, storage_options=dict(self.storage))
        how: dict[str, Any] = {"num_partitions": self.shape.partitions, "num_bits": self.shape.bits}
        how |= {"ivf_centroids": self.centroids, "rabitq_model": self.rotation}
        return lambda fragment: items.create_index_uncommitted(
            COLUMN, "IVF_RQ", name=NAME, metric="cosine", replace=True, fragment_ids=[fragment], **how
        )


def has_lance() -> bool:
    """Return whether Lance's own package is there."""
    return find_spec("lance") is not None


def storage_of(uri: str) -> dict[str, str]:
    """Return the settings with which Lance opens a uri; none for a folder."""
    address = buckets.parse_address(uri)
    return {} if address is None else buckets.storage_options(address.scheme)


def possible(table: Any) -> bool:
    """Return whether an index can be built in segments: Lance's package is there, and there are several data files."""
    return has_lance() and table.stats()["fragment_stats"]["num_fragments"] > 1


def build(table: Any, uri: str, shape: IndexShape, spread: Spread) -> None:
    """Build or replace the index of the items at `uri`; partitions are trained here, on a sample."""
    import lance
    from lance.indices import IndicesBuilder
    from lance.lance import indices

    storage = storage_of(uri)
    items = lance.dataset(uri, storage_options=storage)
    builder = IndicesBuilder(items, COLUMN)
    sample = min(_SAMPLE, items.count_rows() // shape.partitions)
    trained = builder.train_ivf(num_partitions=shape.partitions, distance_type="cosine", sample_rate=sample)
    rotation = indices.build_rq_model(dimension=builder.dimension, num_bits=shape.bits)
    job = SegmentJob(uri, items.version, shape, trained.centroids, rotation, storage)
    made = list(spread(job, [fragment.fragment_id for fragment in items.get_fragments()]))
    lance.dataset(uri, storage_options=storage).commit_existing_index_segments(NAME, COLUMN, made)
    table.checkout_latest()
