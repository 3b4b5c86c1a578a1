"""Do one search for a request: the library's own search, which tells about each stage as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, cast

from looktwice.search.answer import Answer
from looktwice.search.middle_stage import MiddleStage
from looktwice.search.ranking_config import BOTH
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats
from looktwice.search.second_stage import Reranked, SecondStage
from looktwice.serve.device_queue import DeviceQueue
from looktwice.serve.hits import HitSerializer, plain
from looktwice.serve.jobs import Emit
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import SearchRequest
from looktwice.serve.scorers import block_rows
from looktwice.serve.service import Service
from looktwice.serve.tables import Changes, OpenedTable, ServedGroup, ServedTable, variant
from looktwice.serve.ticket import current
from looktwice.types import Candidate, Item, PairScores


class WatchedStage(SecondStage):
    """A second stage of one request, which hands the shortlist to `seen` before it begins.

    Its settings name the prompts of this request; the reranker, which all share, knows those of others, too.
    """

    def __init__(self, *parts: Any, seen: Callable[[Sequence[Candidate]], None], **about: Any) -> None:
        super().__init__(*parts, **about)
        self._seen, self._asked = seen, set[int]()

    def rerank(self, query: Item, shortlist: Sequence[Candidate], top: int) -> Reranked:
        """See SecondStage."""
        self._seen(shortlist)
        found = super().rerank(query, shortlist, top)
        self._asked |= found.stats.scorers
        return found

    def settings(self, asked: Collection[int] | None = None) -> dict[str, Any]:
        """See SecondStage."""
        return super().settings(self._asked if asked is None else asked)


class WatchedMiddle:
    """A middle look that takes a turn on the device for each example, and tells what it found."""

    def __init__(self, inner: MiddleStage, queue: DeviceQueue, teller: _Teller | None) -> None:
        self._inner, self._teller = inner, teller
        inner.turn = queue.run

    def reorder(self, query: Item, shortlist: Sequence[Candidate], stats: RunStats) -> list[Candidate] | None:
        """See MiddleStage."""
        if self._teller is not None:
            self._teller.first(shortlist)
        order = self._inner.reorder(query, shortlist, stats)
        if self._teller is not None and order is not None:
            self._teller.middle(order)
        return order

    def settings(self) -> dict[str, Any]:
        """See MiddleStage."""
        return self._inner.settings()


@dataclass(frozen=True)
class ParsedSearch:
    """The parts of a search that were read from the request: items, or {"item": id} for items of the table."""

    query: Item | Mapping[str, str] | None
    like: Sequence[Item | Mapping[str, str]] = ()
    unlike: Sequence[Item | Mapping[str, str]] = ()

    @property
    def positive(self) -> int:
        """Return how many items the second look compares each candidate with."""
        return len(self.like) + (self.query is not None)

    @property
    def images(self) -> int:
        """Return how many of these have an image, or may have one: the middle look compares each with candidates."""
        known = (one for one in (self.query, *self.like) if one is not None)
        return sum(isinstance(one, Mapping) or one.image is not None for one in known)

    def ids(self) -> dict[str, str]:
        """Return the part of the request by the id of each stored item that it names."""
        parts = [
            ("query.item", self.query),
            *(("like", one) for one in self.like),
            *(("unlike", u) for u in self.unlike),
        ]
        return {one["item"]: param for param, one in parts if isinstance(one, Mapping)}


@dataclass(frozen=True)
class Search:
    """One search: `run` does it and may be called once, on a thread that may block."""

    service: Service
    served: ServedTable | ServedGroup
    request: SearchRequest
    asked: ParsedSearch

    def run(self, emit: Emit) -> dict[str, Any]:
        """Return the body of the answer. Emits `first`, `middle`, `scores` and `end` if the request wants a stream."""
        request, begin = self.request, time.perf_counter()
        opened = self.served.newest()
        self._check_ids(opened.retriever)
        maker = HitSerializer(self.served.place, opened.retriever.table, request.explain)
        teller = _Teller(emit, maker, begin, request.examples) if request.stream else None
        if teller and (ticket := current.get()) is not None:
            ticket.tell = teller.scores
        answer = self._search(self._retriever(opened, teller))
        body = {"hits": maker.ranked(answer.ranking[: answer.k]), **_about(answer)}  # .hits would look details up, too
        if teller:
            teller.rest(answer)
            emit("end", body)
        return body

    def _retriever(self, opened: OpenedTable, teller: _Teller | None) -> Retriever:
        request = self.request
        own = {name: getattr(request, name) for name in ("fusion", "shortlist", "prompt", "maxsim", "zoom", "shown")}
        changes = Changes(**own)
        seen = teller.first if teller else lambda shortlist: None
        made = variant(opened, changes, self.service.settings, partial(WatchedStage, seen=seen))
        if made.middle is not None:
            made.middle = cast(MiddleStage, WatchedMiddle(made.middle, self.service.queue, teller))
        if teller and made.config.shown == BOTH and not self.asked.like:
            teller.rule = "max"
        return made

    def _search(self, retriever: Retriever) -> Answer:
        request, asked = self.request, self.asked
        rerank = request.rerank and retriever.reranker is not None
        several = bool(asked.like or asked.unlike)
        examples: dict[str, Any] = {"like": asked.like, "unlike": asked.unlike}
        examples |= {"examples": request.examples} if several else {}
        how: dict[str, Any] = {"k": request.k, "where": request.where, "rerank": rerank, "distinct": request.distinct}
        return retriever.search(asked.query, **how, **examples)

    def _check_ids(self, retriever: Retriever) -> None:
        """Raise Problem for an id that is no item's; the library would say where the table lies."""
        wanted = self.asked.ids()
        if not wanted:
            return
        found = {row["id"] for row in retriever.table.lookup(wanted, ["id"])}
        for name, param in wanted.items():
            if name not in found:
                raise Problem(404, "unknown_item", "The table has no item of this id.", param)


class _Teller:
    """Tells a stream what happened so far."""

    def __init__(self, emit: Emit, maker: HitSerializer, begin: float, rule: str) -> None:
        self._emit, self._maker, self._begin, self.rule = emit, maker, begin, rule
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._first, self._total = False, 0

    def first(self, shortlist: Sequence[Candidate]) -> None:
        """Tell the first look's order, once."""
        if self._first:
            return
        self._first, self._total = True, len(shortlist)
        self._emit("first", {"hits": self._maker.first(shortlist), "seconds": self._seconds()})

    def middle(self, order: Sequence[Candidate]) -> None:
        """Tell the middle look's scores and order."""
        scores = [{"id": c.id, "maxsim": c.maxsim} for c in order if c.maxsim is not None and not c.estimated]
        self._emit("middle", {"scores": scores, "order": [c.id for c in order], "seconds": self._seconds()})

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
        """Tell rows; of a candidate that was scored several times (examples, crops), what they say together so far."""
        for row in rows:
            self._told.setdefault(row["id"], []).append(row)
        joined = [_joined(self._told[row["id"]], self.rule) for row in rows]
        if rows:
            total = max(self._total, len(self._told))
            self._emit("scores", {"scores": joined, "done": len(self._told), "total": total})

    def _seconds(self) -> float:
        return round(time.perf_counter() - self._begin, 4)


def _joined(rows: Sequence[dict[str, Any]], rule: str) -> dict[str, Any]:
    known = [row for row in rows if row["p"] is not None]
    if len(known) < 2:
        return known[0] if known else rows[-1]
    best = max(known, key=lambda row: row["p"])
    return best if rule == "max" else {**best, "p": fmean(row["p"] for row in known)}


def _about(answer: Answer) -> dict[str, Any]:
    manifest = plain(answer.manifest)
    return {"manifest": manifest, "stages": manifest.get("seconds", {})}
