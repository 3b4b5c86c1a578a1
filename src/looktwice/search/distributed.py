"""Answer queries with the workers of a cluster: each takes whole queries, so that a query's prefix stays warm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.models.cluster import Cluster
from looktwice.score.cache import ScoreCache
from looktwice.score.shared_cache import SharedScoreCache
from looktwice.search.answer import Answer
from looktwice.search.details import describe_from
from looktwice.search.rerank_run import rerank_run
from looktwice.search.retriever import Retriever
from looktwice.search.token_choice import CandidateLoader
from looktwice.store import Table, TableReader, Where, batched

if TYPE_CHECKING:
    from looktwice.evaluate import Run
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.types import Item

SHARD = 8
"""Queries that a worker gets at once."""

LOOKED = 1
"""The same with a second look, which takes seconds a query."""


def portable(path: str | Path) -> str:
    """Return a path or uri as other processes read it."""
    return str(path) if "://" in str(path) or ":/" in str(path) else str(Path(path).absolute())


def sharing(reranker: MllmReranker, cluster: Cluster) -> MllmReranker:
    """Return the reranker as workers get it: they read and write its file of scores through this machine."""

    def share(cache: ScoreCache) -> ScoreCache:
        return SharedScoreCache(cache.path, cluster.share(partial(ScoreCache, cache.path.absolute())))

    return reranker.with_cache(share)


class SpreadRetriever(Retriever):
    """A retriever whose queries are answered by a cluster. Tables must be at the same place on all machines.

    It takes the arguments of `Retriever`; tables by their paths, models by their names. Queries must be Items. Scores
    go into the cache of the reranker, if it has one.
    """

    def __init__(
        self,
        cluster: Cluster,
        tables: Sequence[str | Path],
        encoder: Any = None,
        scorer: MllmReranker | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(tables, encoder, scorer, **settings)
        self._cluster = cluster
        self._make = partial(Retriever, [portable(path) for path in tables], encoder, **settings)

    def search_many(
        self,
        queries: Iterable[Any],
        *,
        k: int = 10,
        where: Where | None = None,
        rerank: bool = True,
        distinct: bool | float = False,
    ) -> Iterator[Answer]:
        """Yield one answer per query, in order, like `Retriever.search_many`."""
        make = partial(self._make, scorer=self.reranker and sharing(self.reranker, self._cluster))
        job = SearchJob(make, {"k": k, "where": where, "rerank": rerank, "distinct": distinct})
        describe = describe_from(self.table)
        shards = batched(queries, LOOKED if rerank and self.reranker is not None else SHARD)
        for answer in chain.from_iterable(self._cluster.map(job, shards)):
            yield replace(answer, describe=describe)


@dataclass(frozen=True, slots=True)
class SearchJob:
    """What a worker needs to answer queries: how to make its retriever, and the settings of the search."""

    make: Callable[[], Retriever]
    how: Mapping[str, Any]

    def __call__(self) -> Callable[[list[Item]], list[Answer]]:
        """Open tables and models, in a worker, and return its work."""
        _one_thread_per_core()
        retriever = self.make()
        return lambda shard: [replace(answer, describe=None) for answer in retriever.search_many(shard, **self.how)]


@dataclass(frozen=True, slots=True)
class RerankJob:
    """What a worker needs to rerank shortlists. `place` is a table or, with `folder`, a folder of images."""

    run: Run
    place: str
    folder: bool
    reranker: MllmReranker
    candidates: Mapping[str, Any]
    rules: Mapping[str, Any]

    def __call__(self) -> Callable[[list[Item]], list[Answer]]:
        """Open table and model, in a worker, and return its work."""
        _one_thread_per_core()
        table = None if self.folder else Table.open(self.place)
        if table is None:
            loader = CandidateLoader.for_folder(Path(self.place), self.candidates["urls"])
        else:
            loader = CandidateLoader.for_table(table, **self.candidates)

        def work(shard: list[Item]) -> list[Answer]:
            made = rerank_run(self.run, shard, loader, self.reranker, table=table, **self.rules)
            return [replace(answer, describe=None) for answer in made]

        return work

    def on(self, cluster: Cluster, queries: Iterable[Item], table: TableReader | None) -> Iterator[Answer]:
        """Yield one answer per query, in order; `table` is the one opened here, which describes the hits."""
        describe = None if table is None else describe_from(table)
        job = replace(self, reranker=sharing(self.reranker, cluster))
        for answer in chain.from_iterable(cluster.map(job, batched(queries, LOOKED))):
            yield replace(answer, describe=describe)


def _one_thread_per_core() -> None:
    from looktwice.models.device import set_threads

    set_threads(None)
