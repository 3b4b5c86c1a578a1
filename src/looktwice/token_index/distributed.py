"""Make visual tokens with the workers of a cluster: they run the tower and the codec, the driver commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.models.cluster import Cluster
from looktwice.score import load_scorer
from looktwice.store import Table, batched
from looktwice.token_index.crops import CroppedTokens
from looktwice.token_index.images import Made, encode_images, image_refs
from looktwice.token_index.sets import TokenSet, demand_tokens, load_set

if TYPE_CHECKING:
    from looktwice.sources import Urls

SHARD = 64
"""Images that a worker gets at once."""


@dataclass(frozen=True, slots=True)
class TokenJob:
    """What a worker needs to make a table's tokens; plain data. The table must be at the same place on all machines.

    `loading` are the arguments of `load_scorer`. `key` names the token set, once it is known.
    """

    table: str
    mllm: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    crops: bool = False
    urls: Urls = "refused"
    key: str = ""

    @classmethod
    def of(cls, table: Table, mllm: str, **how: Any) -> TokenJob:
        """Return the job of a table."""
        path = table.path if isinstance(table.path, str) else str(Path(table.path).absolute())
        return cls(path, mllm, **how)

    def __call__(self) -> Callable[[list[str]], list[Made]]:
        """Load table, model and codec, in a worker, and return its work."""
        from looktwice.models.device import set_threads

        set_threads(None)
        table = Table.open(self.table).snapshot()
        maker = demand_tokens(load_scorer(self.mllm, **self.loading))
        maker = CroppedTokens(maker) if self.crops else maker
        entry = next(entry for entry in table.manifest.tokens if entry["tokens_key"] == self.key)
        codec = load_set(table, maker.tokens_info(), entry).codec

        def work(ids: list[str]) -> list[Made]:
            made = encode_images(maker, codec, image_refs(table, ids, self.urls))
            return [(replace(ref, preview=None), done) for ref, done in made]

        return work

    def on(self, cluster: Cluster) -> Callable[[TokenSet, Iterable[list[str]]], Iterator[Made]]:
        """Return how the images of a set are encoded on a cluster."""

        def encode(made: TokenSet, pending: Iterable[list[str]]) -> Iterator[Made]:
            shards = batched(chain.from_iterable(pending), SHARD)
            return chain.from_iterable(cluster.map(replace(self, key=made.key), shards))

        return encode
