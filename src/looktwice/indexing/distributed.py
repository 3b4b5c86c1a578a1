"""Index with the workers of a cluster: they read and encode, and the process that started them plans and commits.

index(table, scan(paths), encoder, encode=EncodingJob.of(table, encoder.info).on(Cluster("auto")))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looktwice.indexing.batches import EncodedBatch
from looktwice.indexing.encoding import PlannedEncoder
from looktwice.indexing.planning import previews_of
from looktwice.indexing.reading import Planned
from looktwice.models.cluster import Cluster
from looktwice.store import Table, batched
from looktwice.types import EncoderInfo

SHARD = 256
"""Items that a worker gets at once: seconds of work, a few megabytes of result."""


@dataclass(frozen=True, slots=True)
class EncodingJob:
    """What a worker needs to encode for a table; plain data. The table must be at the same place on all machines."""

    table: str
    encoder: str
    revision: str
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 64
    threads: int = 2

    @classmethod
    def of(cls, table: Table, encoder: EncoderInfo, *, batch_size: int = 64, **placement: Any) -> EncodingJob:
        """Return the job of a table. `placement` is `device` and `dtype` of the encoder."""
        path = table.path if isinstance(table.path, str) else str(Path(table.path).absolute())
        return cls(path, encoder.name, encoder.revision, batch_size=batch_size, **placement)

    def __call__(self) -> Callable[[list[Planned]], list[EncodedBatch]]:
        """Load table and encoder, in a worker, and return its work."""
        from looktwice.encode import load_encoder
        from looktwice.models.device import set_threads

        set_threads(None)
        known = Table.open(self.table).snapshot()
        encoder = load_encoder(self.encoder, revision=self.revision, device=self.device, dtype=self.dtype)
        known.manifest.check(encoder.info, self.table)
        work = PlannedEncoder(encoder, known, self.batch_size, self.threads, previews_of(known))
        return lambda shard: [batch for batch in work.batches(shard) if _holds_something(batch)]

    def on(self, cluster: Cluster) -> Callable[[Iterable[Planned]], Iterator[EncodedBatch]]:
        """Return how a plan is encoded on a cluster."""

        def encode(plan: Iterable[Planned]) -> Iterator[EncodedBatch]:
            for batches in cluster.map(self, batched(plan, SHARD)):
                yield from batches

        return encode


def _holds_something(batch: EncodedBatch) -> bool:
    return bool(batch.rows or batch.unchanged or batch.failures or batch.deleted or batch.previews or batch.encoded)
