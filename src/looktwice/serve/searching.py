"""Do one search for a request: the library's own search, which tells about each stage as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from looktwice.serve.tables import ServedTable, variant
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


@dataclass(frozen=True)
class Asked:
    """The parts of a search that were read from the request: items, or {"item": id} for items of the table."""

    query: Item | Mapping[str, str] | None
    like: Sequence[Item | Mapping[str, str]] = ()
    unlike: Sequence[Item | Mapping[str, str]] = ()

    @property
    def positive(self) -> int:
        """Return how many items the second look compares each candidate with."""
        return len(self.like) + (self.query is not None)

    def ids(self) -> dict[str, str]:
        """Return the part of the request by the id of each stored item that it names."""
        parts = [
            ("query.item", self.query),
            *(("like", one) for one in self.like),
            *(("unlike", u) for u in self.unlike),
        ]
        return {one["item"]: param for param, one in parts if isinstance(one, Mapping)}


class Search:
    """One search: `run` does it and may be called once, on a thread that may block."""

    def __init__(self, served: ServedTable, request: SearchRequest, asked: Asked) -> None:
        self.served, self.request, self.asked = served, request, asked

    def run(self, emit: Emit) -> dict[str, Any]:
        """Return the body of the answer. Emits `first`, `scores` and `end` if the request wants a stream."""
        request, begin = self.request, time.perf_counter()
        base = self.served.retriever()
        self._check_ids(base)
        maker = HitMaker(self.served.name, base.table, request.explain)
        teller = _Teller(emit, maker, begin) if request.stream else None
        changes = {"fusion": request.fusion, "shortlist": request.shortlist, "prompt": request.prompt}
        seen = teller.first if teller else lambda shortlist: None
        retriever = variant(base, changes, partial(WatchedStage, seen=seen))
        if teller and (ticket := current.get()) is not None:
            ticket.tell = teller.scores
        answer = self._search(retriever)
        body = {"hits": maker.ranked(answer.hits), **_about(answer)}
        if teller:
            teller.rest(answer)
            emit("end", body)
        return body

    def _search(self, retriever: Retriever) -> Answer:
        request, asked = self.request, self.asked
        rerank = request.rerank and retriever.reranker is not None
        examples: dict[str, Any] = {"like": asked.like, "unlike": asked.unlike}
        return retriever.search(asked.query, k=request.k, rerank=rerank, where=request.where, **examples)

    def _check_ids(self, retriever: Retriever) -> None:
        """Raise Problem for an id that is no item's; the library would say where the table lies."""
        wanted = self.asked.ids()
        found = {row["id"] for row in retriever.table.lookup(wanted, ["id"])}
        for name, param in wanted.items():
            if name not in found:
                raise Problem(404, "unknown_item", "The table has no item of this id.", param)


class _Teller:
    """Tells a stream what happened so far."""

    def __init__(self, emit: Emit, maker: HitMaker, begin: float) -> None:
        self._emit, self._maker, self._begin = emit, maker, begin
        self._told: dict[str, dict[str, Any]] = {}
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
        """Tell rows; of a candidate that several examples were compared with, the best so far."""
        best = [max(self._told.get(row["id"], row), row, key=lambda one: one["p"] or 0.0) for row in rows]
        self._told |= {row["id"]: row for row in best}
        if rows:
            self._emit("scores", {"scores": best, "done": len(self._told), "total": max(self._total, len(self._told))})

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._begin, 4)


def _about(answer: Answer) -> dict[str, Any]:
    manifest = plain(answer.manifest)
    return {"manifest": manifest, "stages": manifest.get("seconds", {})}
