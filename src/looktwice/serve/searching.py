"""Do one search for a request: the library's own search, which tells about each stage as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from looktwice.search.retriever import Answer, Retriever
from looktwice.search.second_stage import Reranked, SecondStage
from looktwice.serve.device_queue import current
from looktwice.serve.hits import HitMaker, plain
from looktwice.serve.jobs import Emit
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import SearchRequest
from looktwice.serve.scorers import block_rows
from looktwice.serve.service import Service
from looktwice.serve.tables import ServedTable, variant
from looktwice.sources.loader import CandidateRef, LoadError
from looktwice.types import Candidate, Item, PairScores


class WatchedStage(SecondStage):
    """A second stage that hands the shortlist to `seen` before it begins."""

    def __init__(self, *parts: Any, seen: Callable[[Sequence[Candidate]], None], **about: Any) -> None:
        super().__init__(*parts, **about)
        self._seen = seen

    def rerank(self, query: Item, shortlist: Sequence[Candidate], top: int) -> Reranked:
        """See SecondStage."""
        self._seen(shortlist)
        return super().rerank(query, shortlist, top)


class Search:
    """One search: `run` does it and may be called once, on a thread that may block."""

    def __init__(self, service: Service, served: ServedTable, asked: SearchRequest, query: Item | None) -> None:
        self.service, self.served, self.asked, self.query = service, served, asked, query

    def run(self, emit: Emit) -> dict[str, Any]:
        """Return the body of the answer. Emits `first`, `scores` and `end` if the request wants a stream."""
        asked, begin = self.asked, time.perf_counter()
        base = self.served.retriever()
        maker = HitMaker(self.served.name, base.table, asked.explain)
        teller = _Teller(emit, maker, begin) if asked.stream else None
        changes = {"fusion": asked.fusion, "shortlist": asked.shortlist, "prompt": asked.prompt}
        seen = teller.first if teller else lambda shortlist: None
        retriever = variant(base, changes, partial(WatchedStage, seen=seen))
        query = self.query if self.query is not None else self._stored(base)
        if teller and (ticket := current.get()) is not None:
            ticket.tell = teller.scores
        answer = self._search(retriever, query)
        body = {"hits": maker.ranked(answer.hits), **_about(answer)}
        if teller:
            teller.rest(answer)
            emit("end", body)
        return body

    def _search(self, retriever: Retriever, query: Item) -> Answer:
        asked = self.asked
        rerank = asked.rerank and retriever.reranker is not None
        more: dict[str, Any] = {}
        if asked.where is not None:
            more["where"] = asked.where
        return retriever.search(query, k=asked.k, rerank=rerank, **more)

    def _stored(self, retriever: Retriever) -> Item:
        """Return the item of the table that is the query."""
        name = str(self.asked.query.item)
        entry = retriever.loader.find([name])[0]
        if isinstance(entry, LoadError):
            raise Problem(404, "unknown_item", "The table has no item of this id.", "query.item")
        return load_entry(self.service, entry, "query.item")


class _Teller:
    """Tells a stream what happened so far."""

    def __init__(self, emit: Emit, maker: HitMaker, begin: float) -> None:
        self._emit, self._maker, self._begin = emit, maker, begin
        self._told: set[str] = set()
        self._first, self._total = False, 0

    def first(self, shortlist: Sequence[Candidate]) -> None:
        """Tell the first look's order."""
        self._first, self._total = True, len(shortlist)
        self._emit("first", {"hits": self._maker.first(shortlist), "seconds": self._seconds()})

    def scores(self, ids: Sequence[str], scores: PairScores) -> None:
        """Tell the scores of a block."""
        self._send(block_rows(scores, ids))

    def rest(self, answer: Answer) -> None:
        """Tell what came from the score cache, and what could not be scored."""
        if not self._first:
            self.first(answer.shortlist)
        self._send(
            [
                {
                    "id": hit.id,
                    "p": hit.p,
                    "off_mass": (hit.explain or {}).get("off_mass"),
                    "entropy": (hit.explain or {}).get("entropy"),
                    "status": status,
                }
                for hit in answer.ranking
                if hit.id not in self._told
                and (status := (hit.explain or {}).get("status", "")) not in ("", "not scored")
            ]
        )

    def _send(self, rows: list[dict[str, Any]]) -> None:
        self._told |= {row["id"] for row in rows}
        if rows:
            self._emit("scores", {"scores": rows, "done": len(self._told), "total": max(self._total, len(self._told))})

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._begin, 4)


def load_entry(service: Service, entry: CandidateRef, param: str) -> Item:
    """Read a stored item's image, and return it with its text. Raises Problem if its file cannot be read."""
    from looktwice.sources.loader import ImageLoader

    found = next(iter(next(iter(ImageLoader(0).load([entry])))))
    if isinstance(found, LoadError):
        raise Problem(409, "image_missing", f"The item's image cannot be read ({found.why.reason}).", param)
    return found


def _about(answer: Answer) -> dict[str, Any]:
    manifest = plain(answer.manifest)
    return {"manifest": manifest, "stages": manifest.get("seconds", {})}
