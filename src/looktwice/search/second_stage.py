"""The second stage: rerank one shortlist with a multimodal LLM, within a budget.

It has three strategies: score all candidates; score blocks until the rest hardly matters; or score all from coarse
tokens and the best of them again. `_fuse` turns scores into hits; `rank.fusion.fuse` decides every order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from looktwice.errors import UsageError
from looktwice.rank import below, fuse, tied_at_the_top
from looktwice.rank.budget import BLOCK, blended, chance_of_a_miss
from looktwice.rank.calibration import source_of
from looktwice.rank.missing import keep_places
from looktwice.score import Scorer
from looktwice.score.readout.probability import concatenate
from looktwice.search.crop_look import CropLook
from looktwice.search.examples import joined, positives
from looktwice.search.middle_stage import second_depth
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import inferred
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import CandidateRef, LoadError
from looktwice.types import SCORED, Candidate, Hit, Item, PairScores


@dataclass(frozen=True)
class Reranked:
    """A whole shortlist in its new order, with counts and seconds."""

    hits: list[Hit]
    stats: RunStats


@dataclass(frozen=True)
class _Request:
    """One query, its shortlist, the `candidates` of it to score, and the number of places that count (`top`)."""

    query: Item
    shortlist: Sequence[Candidate]
    candidates: Sequence[CandidateRef | LoadError]
    top: int
    stats: RunStats

    def only(self, rows: Sequence[int]) -> _Request:
        """Return the request with only the candidates at `rows`."""
        return replace(self, shortlist=[self.shortlist[i] for i in rows], candidates=[self.candidates[i] for i in rows])


class SecondStage:
    """A reranker of shortlists, with one model, loader and ranking.

    It scores the first `depth` candidates, or fewer (see `middle_stage.second_depth`). `first_pass` loads the coarse
    tokens of a cascade. `about` are the settings of the first stage, which a calibration must match. `crops` shows
    crops, too.
    """

    def __init__(
        self,
        reranker: MllmReranker,
        loader: CandidateLoader,
        config: RankingConfig,
        depth: int,
        *,
        first_pass: CandidateLoader | None = None,
        about: Mapping[str, Any] | None = None,
        crops: CropLook | None = None,
    ) -> None:
        if config.budget.epsilon is not None and reranker.listwise:
            raise UsageError(
                "A budget that stops early scores in several calls, but the score mode choice needs all candidates in "
                "one; use the budget all."
            )
        self.reranker, self.loader, self.config, self.depth = reranker, loader, config, depth
        self.first_pass, self.crops = first_pass, crops
        self.about = dict(about or {})
        self._checked: set[int] = set()  # by id: a scorer need not be hashable

    def rerank(self, query: Item, shortlist: Sequence[Candidate], top: int) -> Reranked:
        """Rank the best `depth` by both scores. The rest follows in coarse order.

        Raises UsageError if the prompt cannot show a pair, if required tokens are missing, or if the calibration was
        made with other settings; ModelError if the model cannot be loaded.
        """
        stats = RunStats()
        with stats.time("read"):
            seen = shortlist[: second_depth(shortlist, self.depth)]
            found = self.loader.find([candidate.id for candidate in seen])
        candidates = self.config.direction.candidates(found)
        stats.directions[inferred(query, candidates)] += 1
        request = _Request(query, shortlist, candidates, top, stats)
        if self.first_pass is not None:
            return Reranked(_shown(self._cascade(request, self.first_pass), stats), stats)
        scores = self._score_all(request) if self.config.budget.epsilon is None else self._score_blocks(request)
        return Reranked(_shown(self._fuse(request, scores), stats), stats)

    def settings(self, asked: Collection[int] | None = None) -> dict[str, Any]:
        """Return the settings of the second stage for a run's manifest; of its scorers only those `asked`, if given."""
        loaders = [loader for loader in (self.first_pass, self.loader, self.crops) if loader is not None]
        return {
            **self.config.settings(),
            "second_look": [dict(record) for record in self.reranker.settings(asked)],
            "candidates_from": [record for loader in loaders for record in loader.settings()],
        }

    # --- strategies: from candidates to scores --------------------------------------------------------------------

    def _score_all(self, request: _Request) -> PairScores | None:
        return self._score(request, request.candidates, self.loader)

    def _score_blocks(self, request: _Request) -> PairScores | None:
        """Score blocks in coarse order. Stop when the chance of missing a relevant one for the top is below ε."""
        scores: PairScores | None = None
        for start in range(0, len(request.candidates), BLOCK):
            block = self._score(request, request.candidates[start : start + BLOCK], self.loader)
            scores = block if scores is None or block is None else concatenate(scores, block)
            if scores is not None and self._chance(request, scores) < (self.config.budget.epsilon or 0):
                break
        return scores

    def _chance(self, request: _Request, scores: PairScores) -> float:
        """Estimate the chance that an unscored candidate is relevant and would enter the top."""
        config, shortlist = self.config, request.shortlist
        assert config.calibration is not None
        done = [i for i, status in enumerate(scores.status) if status in SCORED]
        seen = [(blended(shortlist[i], config.fusion), float(scores.p[i])) for i in done]
        left = shortlist[len(scores.p) : len(request.candidates)]
        best = max(candidate.coarse for candidate in shortlist)
        return chance_of_a_miss(seen, left, best, config.budget.top or request.top, config.fusion, config.calibration)

    def _cascade(self, request: _Request, first_pass: CandidateLoader) -> list[Hit]:
        """Score all from coarse tokens, and the best of them again. The others rank below."""
        scores = self._score(request, request.candidates, first_pass)
        coarse = fuse(request.shortlist, scores, self.config.fusion, explain=True)
        before = {hit.id: hit for hit in coarse}
        best = {hit.id for hit in [hit for hit in coarse if hit.scored][: self.config.budget.best]}
        again = request.only([i for i, candidate in enumerate(request.shortlist) if candidate.id in best])
        seen = [hit for hit in self._fuse(again, self._score_all(again)) if hit.scored]
        first = [_explain(h, coarse_rank=_rank(before[h.id]), rough_p=before[h.id].p) for h in seen]
        done = {hit.id for hit in first}
        left = self._explained([hit for hit in coarse if hit.id not in done], request)
        rest = [_explain(h, look="rough") if h.scored else h for h in left]
        gone = {h.id: _rank(before[h.id]) for h in coarse if h.status == "missing"}
        return keep_places(below(first, rest), gone)

    def _score(
        self, request: _Request, candidates: Sequence[CandidateRef | LoadError], loader: CandidateLoader
    ) -> PairScores | None:
        # all candidates of the request are compared with one another, so one prompt must show them all
        scores = joined(
            request.query, [self._one(item, request, candidates, loader) for item in positives(request.query)]
        )
        self._check(request)  # the model's revision is known only after loading
        return scores

    def _check(self, request: _Request) -> None:
        """Raise Mismatch if a calibration or a tuned fusion was made with other settings than this request's.

        Requests differ in their prompts, and may share a reranker: only the scorers of this one count.
        """
        fitted = [one for one in (self.config.calibration, self.config.tuned) if one is not None]
        shown = [one for one in request.candidates if not isinstance(one, LoadError)] if fitted else []
        for query in positives(request.query) if shown else ():
            scorer = self.reranker.scorer_for(query, shown)
            if id(scorer) not in self._checked:
                source = self._source(scorer, request.query)
                for one in fitted:
                    one.check(source)
                self._checked.add(id(scorer))

    def _source(self, scorer: Scorer, query: Item) -> dict[str, Any]:
        """Return the settings of the pairs of one scorer; only a query with an image matches crops."""
        loaders = (self.first_pass, self.loader, self.crops if query.image is not None else None)
        seen = [loader.for_scorer(scorer).settings() for loader in loaders if loader is not None]
        own = {"second_look": [scorer.settings()], "candidates_from": seen}
        return source_of({**self.about, **self.config.settings(), **own})

    def _one(
        self,
        query: Item,
        request: _Request,
        candidates: Sequence[CandidateRef | LoadError],
        loader: CandidateLoader,
    ) -> PairScores | None:
        """Score the candidates for one positive example; with `crops`, also their best crops."""
        stats = request.stats
        found = self.reranker.score(query, candidates, loader, stats, among=request.candidates)
        if found is None or self.crops is None or loader is self.first_pass:
            return found
        return self.crops.add(self.reranker, query, request.shortlist, candidates, found, stats, request.candidates)

    # --- from scores to hits --------------------------------------------------------------------------------------

    def _fuse(self, request: _Request, scores: PairScores | None) -> list[Hit]:
        """Order a shortlist. If the rule for ties needs it, ask a second question about candidates tied at the top."""
        config, second = self.config, None
        if scores is not None:
            tied = tied_at_the_top(request.shortlist, scores, config.fusion, config.ties)
            asked = request.candidates[: len(scores.p)]
            second = joined(request.query, self._ask(request, asked, tied)) if tied else None
        hits = fuse(request.shortlist, scores, config.fusion, ties=config.ties, second=second, explain=True)
        return self._explained(hits, request)

    def _ask(
        self, request: _Request, asked: Sequence[CandidateRef | LoadError], tied: Sequence[int]
    ) -> list[PairScores]:
        ask, items = self.reranker.ask, positives(request.query)
        return [ask(item, asked, tied, self.loader, request.stats) for item in items]

    def _explained(self, hits: Sequence[Hit], request: _Request) -> list[Hit]:
        known = {candidate.id: candidate for candidate in request.shortlist}
        return [hit if hit.p is None else self._with_parts(hit, hit.p, known[hit.id]) for hit in hits]

    def _with_parts(self, hit: Hit, p: float, candidate: Candidate) -> Hit:
        """Add each stage's part of the score, and the calibrated probability. A hit holds no estimated maxsim."""
        own: dict[str, Any] = {}
        if self.config.fusion.method == "linear":
            own |= self.config.fusion.parts(candidate.coarse, candidate.maxsim, self.config.ties.truncate(p))
        if self.config.calibration is not None:
            own["calibrated"] = self.config.calibration.probability(p)
        return _explain(hit, **own)


def _shown(hits: list[Hit], stats: RunStats) -> list[Hit]:
    """Say of which hits the model saw a preview, as the original was not at hand."""
    return [_explain(hit, image="preview") if hit.id in stats.previewed else hit for hit in hits]


def _explain(hit: Hit, **more: Any) -> Hit:
    return replace(hit, explain={**(hit.explain or {}), **more})


def _rank(hit: Hit) -> Any:
    return (hit.explain or {})["coarse_rank"]
