"""A second look at somebody else's shortlists, from a run file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from looktwice.errors import QueryError, UsageError
from looktwice.rank import Fusion, Ties
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import Direction
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.retriever import Answer, positive
from looktwice.search.run_record import RunStats
from looktwice.search.second_stage import SecondStage
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import LoadError
from looktwice.types import Candidate, Item

if TYPE_CHECKING:
    from looktwice.evaluate import Run


def rerank_run(
    run: Run,
    queries: Iterable[Item],
    loader: CandidateLoader,
    reranker: MllmReranker,
    *,
    fusion: Fusion | str | float = "0.5",
    ties: Ties | str = "default",
    direction: Direction | str = "auto",
    shortlist: int = 100,
    k: int = 10,
) -> Iterator[Answer]:
    """Answer every query that `run` has a shortlist for, in the order of `queries`.

    Raises UsageError where scores that are no cosines would be weighed against probabilities, and where no candidate of
    a whole run is to be found.
    """
    config = RankingConfig.of(fusion, ties, direction)
    _check_scale(run, config.fusion)
    _check_ids(run, loader)
    asked = {"k": positive(k, "k"), "shortlist": positive(shortlist, "shortlist")}
    stage = SecondStage(reranker, loader, config, shortlist)
    for query in queries:
        if query.id not in run:
            continue
        candidates = [Candidate(document, score) for document, score in run[query.id]]
        stats = RunStats(queries=1, retrieved=len(candidates))
        try:
            query = config.direction.query(query)
        except QueryError as error:
            yield Answer(query, [], [], k, {**asked, "second_look": None}, stats, error=error)
            continue
        reranked = stage.rerank(query, candidates, k)
        stats.add(reranked.stats)
        yield Answer(query, candidates, reranked.hits, k, {**asked, **stage.settings()}, stats)


def _check_ids(run: Run, loader: CandidateLoader) -> None:
    """Ids that are all unknown are spelled another way; nobody wants to wait for a run of nothing but "missing"."""
    some = list(dict.fromkeys(document for documents in run.values() for document, _ in documents[:10]))[:1000]
    if some and all(isinstance(found, LoadError) for found in loader.find(some)):
        raise UsageError(
            f"None of the shortlist's ids is in the collection ({some[0]!r}, …); ids must be spelled as there."
        )


def _check_scale(run: Run, fusion: Fusion) -> None:
    """A weighted sum of a BM25 score of 17 and a probability would be the BM25 order with a mark of quality on it."""
    scores = [score for documents in run.values() for _, score in documents]
    if scores and fusion.method == "linear" and fusion.weight and not -1.01 <= min(scores) <= max(scores) <= 1.01:
        raise UsageError(
            f"The shortlist's scores run from {min(scores):g} to {max(scores):g}; a weighted fusion needs cosines. Use "
            "--fusion rrf (ranks) or --fusion p-only."
        )
