"""Rerank the shortlists of a run file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from looktwice.errors import QueryError, UsageError
from looktwice.rank import Fusion, Ties, Tuned
from looktwice.search.answer import Answer
from looktwice.search.crop_look import CropLook
from looktwice.search.details import describe_from
from looktwice.search.middle_stage import MiddleStage, kept_look
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import Direction
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.retriever import positive
from looktwice.search.run_record import RunStats
from looktwice.search.second_stage import SecondStage
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import LoadError
from looktwice.types import Candidate, Item

if TYPE_CHECKING:
    from looktwice.evaluate import Run
    from looktwice.store import TableReader


def rerank_run(
    run: Run,
    queries: Iterable[Item],
    loader: CandidateLoader,
    reranker: MllmReranker,
    *,
    fusion: Fusion | Tuned | str | float = "auto",
    ties: Ties | str = "default",
    direction: Direction | str = "auto",
    shortlist: int = 100,
    k: int = 10,
    table: TableReader | None = None,
    maxsim: int | None = None,
    maxsim_codec: str = "auto",
    zoom: bool | None = None,
    shown: str = "whole",
    about: Mapping[str, Any] | None = None,
) -> Iterator[Answer]:
    """Yield one answer per query with a shortlist in `run`, in the order of `queries`.

    `maxsim` is the depth of a middle look, which needs the `table` that holds the tokens. `about` says what made the
    run (its "encoder"), which a tuned fusion is compared with.

    Raises UsageError for a weighted fusion of scores other than cosines, and for a run of unknown candidates only.
    """
    if maxsim is None and table is not None:
        maxsim, zoom = kept_look(table, zoom)
    rules: dict[str, Any] = {"maxsim": maxsim or 0, "maxsim_codec": maxsim_codec, "shown": shown, "zoom": bool(zoom)}
    config = RankingConfig.of(fusion, ties, direction, **rules)
    middle = None if table is None else MiddleStage.of(table, reranker, config, loader.codec)
    _check_scale(run, config.fusion)
    _check_ids(run, loader)
    asked = {"k": positive(k, "k"), "shortlist": positive(shortlist, "shortlist")}
    stage = SecondStage(reranker, loader, config, shortlist, about=about, crops=CropLook.of(config, middle, loader))
    describe = None if table is None else describe_from(table)
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
        order = None if middle is None else middle.reorder(query, candidates, stats)
        reranked = stage.rerank(query, order or candidates, k)
        stats.add(reranked.stats)
        own = {} if middle is None else middle.settings()
        settings = {**asked, **stage.settings(), **own}
        yield Answer(query, candidates, reranked.hits, k, settings, stats, describe=describe, middle=order)


def _check_ids(run: Run, loader: CandidateLoader) -> None:
    """Raise UsageError if all ids of a sample are unknown, as a run of "missing" candidates would be of no use."""
    some = list(dict.fromkeys(document for documents in run.values() for document, _ in documents[:10]))[:1000]
    if some and all(isinstance(found, LoadError) for found in loader.find(some)):
        raise UsageError(
            f"The collection has none of the shortlist's ids ({some[0]!r}, …); spell ids as the collection does."
        )


def _check_scale(run: Run, fusion: Fusion) -> None:
    """Raise UsageError for a weighted sum of p and scores outside [-1, 1]: a BM25 score of 17 would drown p."""
    scores = [score for documents in run.values() for _, score in documents]
    if scores and fusion.method == "linear" and fusion.weight and not -1.01 <= min(scores) <= max(scores) <= 1.01:
        raise UsageError(
            f"The shortlist's scores run from {min(scores):g} to {max(scores):g}, but a weighted fusion needs cosines; "
            "use the fusion rrf (ranks) or p-only."
        )
