"""`Reranker`: rerank documents in memory, with the conventions of sentence-transformers' CrossEncoder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from looktwice.errors import UsageError, demand_list, warn_renamed
from looktwice.score import Scorer
from looktwice.search.inputs import QueryLike, as_candidate, as_item, ends_like_image
from looktwice.search.mllm_reranker import AUTO, MllmReranker
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import CandidateLoader
from looktwice.types import SCORED, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray

_log = logging.getLogger(__name__)


class Reranker:
    """A reranker that scores documents against a query by a frozen MLLM's answer about the pair.

    A query or document is a path, a PIL image, a text, or a dict {"image", "text"}. `looktwice.search.inputs` tells
    which str is a path. Scores are probabilities in [0, 1]. `mllm` and the other settings are those of
    `score.load_scorer`; the weights load at first use.

        Reranker().rank("query.jpg", ["a.jpg", "b.jpg", "c.jpg"], top_k=2)
        # [{"corpus_id": 2, "score": 0.97}, {"corpus_id": 0, "score": 0.11}]
    """

    def __init__(self, mllm: str | Scorer = "tiny-vl", *, prompt: str = AUTO, **options: Any) -> None:
        self._reranker = MllmReranker(mllm, prompt=prompt, **options)
        self._loader = CandidateLoader(cache_bytes=0)

    def rank(
        self, query: QueryLike, documents: Sequence[QueryLike], top_k: int | None = None, return_documents: bool = False
    ) -> list[dict[str, Any]]:
        """Return the documents, best first, as {"corpus_id": position, "score": p}; with `top_k`, only the best.

        Equal scores keep the documents' order. With `return_documents`, "text" and "image" hold the document as it was
        given. An unreadable document, or one without a usable answer, comes last, with the score NaN and the reason
        under "error". Raises UsageError for an unreadable query, a missing file and a document of an unknown type.
        """
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k must be at least 1, not {top_k}.")
        demand_list(documents, "The documents")
        asked = as_item(query, "the query")
        items = [as_candidate(document, f"document {i}") for i, document in enumerate(documents)]
        stats = RunStats()
        scores = self._reranker.score(asked, items, self._loader, stats)
        if scores is None:
            return []
        order = sorted(range(len(items)), key=lambda i: (scores.status[i] not in SCORED, -scores.p[i], i))
        rows: list[dict[str, Any]] = []
        for i in order[:top_k]:
            why = stats.unreadable.get(items[i].id, scores.status[i])
            rows.append({"corpus_id": i, "score": float(scores.p[i])} | ({} if why in SCORED else {"error": str(why)}))
            if return_documents:
                rows[-1] |= _as_given(documents[i])
        return rows

    def predict(self, pairs: Sequence[tuple[QueryLike, QueryLike]], *, show_progress_bar: bool = False) -> FloatArray:
        """Return one probability per (query, document) pair, float32 [n], in order.

        An unreadable document or an unusable answer gives NaN; a warning counts them. Pairs whose query is the same
        path or text are scored together wherever they stand. Pairs whose query is the same image object are scored
        together if they are neighbours. Raises UsageError as `rank` does.
        """
        import numpy as np

        p = np.full(len(pairs), np.nan, dtype=np.float32)
        stats = RunStats()
        for rows in _progress(_by_query(pairs), show_progress_bar, len(pairs)):
            asked = as_item(pairs[rows[0]][0], f"the query of pair {rows[0]}")
            items = [as_candidate(pairs[i][1], f"the document of pair {i}") for i in rows]
            scores = self._reranker.score(asked, items, self._loader, stats)
            p[rows] = scores.p if scores is not None else np.nan
        if missed := int(np.isnan(p).sum()):
            first = next((f"; {name}: {why}" for name, why in stats.unreadable.items()), "")
            _log.warning("%d of %d pairs have no score (NaN)%s", missed, len(p), first)
        return p

    def describe(self) -> list[Mapping[str, Any]]:
        """Return `settings()`; the old name."""
        warn_renamed("Reranker.describe", "Reranker.settings")
        return self.settings()

    def settings(self) -> list[Mapping[str, Any]]:
        """Return model, revision, prompt with its hash, dtype and device: one record per prompt in use."""
        return self._reranker.settings()


def _by_query(pairs: Sequence[tuple[QueryLike, QueryLike]]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    last: Any = None  # the object, not its id: Python may give a freed object's id to the next query
    key: Any = None
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UsageError(f"Pair {i} must be (query, document), found {pair!r:.60}.")
        if pair[0] is not last or key is None:
            last = pair[0]
            key = last if isinstance(last, str | os.PathLike) else i
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _progress(groups: list[list[int]], shown: bool, total: int) -> Iterator[list[int]]:
    if not shown:
        yield from groups
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("pairs", total=total)
        for rows in groups:
            yield rows
            bar.advance(task, len(rows))


def _as_given(document: QueryLike) -> dict[str, Any]:
    if isinstance(document, Mapping):
        return dict(document)
    if isinstance(document, Item):
        return {key: value for key in ("image", "text") if (value := getattr(document, key)) is not None}
    return {"text" if isinstance(document, str) and not ends_like_image(document) else "image": document}
