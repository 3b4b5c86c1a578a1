"""One shortlist looked at twice: as much of it as the budget says, ties asked about, and both looks fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.rank import Fusion, Ties, below, fuse, tied_at_the_top
from looktwice.rank.budget import BLOCK, Budget, chance_of_change
from looktwice.rank.calibration import Calibration
from looktwice.score import Scorer
from looktwice.score.readout.probability import scatter
from looktwice.search.mllm_reranker import SecondLook
from looktwice.search.modalities import Direction, inferred
from looktwice.search.run_record import Tally
from looktwice.sources.loader import Entry, Find, Reader, Unreadable
from looktwice.types import Candidate, Hit, Item, PairScores


@dataclass(frozen=True)
class Rules:
    """How two looks become one ranking.

    `sure`: hits whose p is below what this precision takes are not shown. It and a `budget` that stops early need a
    `calibration`, which must be for the same encoder, model, prompt and codec.
    """

    fusion: Fusion
    ties: Ties
    direction: Direction
    budget: Budget
    calibration: Calibration | None
    sure: float | None

    @classmethod
    def of(
        cls,
        fusion: Fusion | str | float = "0.5",
        ties: Ties | str = "default",
        direction: Direction | str = "auto",
        budget: Budget | str = "all",
        calibration: Calibration | str | Path | None = None,
        sure: float | None = None,
    ) -> Rules:
        """Rules by their names. Raises UsageError for what does not go together."""
        known = None if calibration is None else Calibration.load(calibration)
        rules = cls(
            Fusion.parse(fusion), Ties.parse(ties), Direction.parse(direction), Budget.parse(budget), known, sure
        )
        if known is None and (rules.budget.epsilon is not None or sure is not None):
            raise UsageError("A budget that stops early, and sure hits only, take a file made by looktwice calibrate.")
        if rules.budget.rough is not None and known is not None:
            raise UsageError("A calibration holds for one codec, and a cascade uses two; leave one of them out.")
        if rules.budget.epsilon is not None and rules.fusion.method != "linear":
            raise UsageError("A budget that stops early needs --fusion with a weight, or p-only; not rrf.")
        if sure is not None and known is not None:
            known.threshold(sure)
        return rules

    @property
    def least(self) -> float | None:
        """The least p of a hit that is shown."""
        return None if self.sure is None or self.calibration is None else self.calibration.threshold(self.sure)

    def describe(self) -> dict[str, Any]:
        """What the manifest says."""
        own = {"fusion": str(self.fusion), "ties": str(self.ties), "budget": str(self.budget)}
        if self.calibration is None:
            return own
        made = {"method": self.calibration.method, **self.calibration.quality}
        return {**own, "calibration": made, "sure": self.sure, "least_p": self.least}


@dataclass
class Look:
    """Looks twice at shortlists. `check` is called once a model is loaded, and may refuse what it finds.

    `rough_for` reads candidates for the first round of a cascade.
    """

    look: SecondLook | None
    find: Find
    reader_for: Callable[[Scorer], Reader]
    rules: Rules
    depth: int
    check: Callable[[], None]
    rough_for: Callable[[Scorer], Reader] | None = None

    def rank(self, query: Item, shortlist: Sequence[Candidate], top: int, tally: Tally) -> list[Hit]:
        """The best `depth` by both looks as far as the budget goes, the rest below them as the first look had it."""
        if self.look is None:
            if self.rules.sure is not None:
                raise UsageError("Sure hits are known by the second look only; take one, or leave --sure out.")
            return fuse(shortlist, None, self.rules.fusion, explain=True)
        with tally.time("read"):
            found = self.find([candidate.id for candidate in shortlist[: self.depth]])
        entries = self.rules.direction.candidates(found)
        tally.directions[inferred(query, entries)] += 1
        if self.rough_for is not None:
            return self._cascade(query, shortlist, entries, self.look, self.rough_for, tally)
        return self._fused(query, shortlist, entries, self._score(query, shortlist, entries, top, tally), tally)

    def _cascade(
        self,
        query: Item,
        shortlist: Sequence[Candidate],
        entries: Sequence[Entry | Unreadable],
        look: SecondLook,
        rough_for: Callable[[Scorer], Reader],
        tally: Tally,
    ) -> list[Hit]:
        """All of it from rough tokens, the best once more from the others; what was seen roughly only stays below."""
        rough = fuse(shortlist, look.score(query, entries, rough_for, tally), self.rules.fusion, explain=True)
        before = {hit.id: hit for hit in rough}
        best = {hit.id for hit in [hit for hit in rough if hit.scored][: self.rules.budget.best]}
        at = [i for i, candidate in enumerate(shortlist) if candidate.id in best]
        chosen, shown = [shortlist[i] for i in at], [entries[i] for i in at]
        scores = look.score(query, shown, self.reader_for, tally)
        seen = [hit for hit in self._fused(query, chosen, shown, scores, tally) if hit.scored]
        first = [_and(h, coarse_rank=(before[h.id].explain or {})["coarse_rank"], rough_p=before[h.id].p) for h in seen]
        done = {hit.id for hit in first}
        rest = [_and(self._explained(hit), look="rough") if hit.scored else hit for hit in rough if hit.id not in done]
        return below(first, rest)

    def _fused(
        self,
        query: Item,
        shortlist: Sequence[Candidate],
        entries: Sequence[Entry | Unreadable],
        scores: PairScores | None,
        tally: Tally,
    ) -> list[Hit]:
        assert self.look is not None
        tied = [] if scores is None else tied_at_the_top(shortlist, scores, self.rules.fusion, self.rules.ties)
        second = (
            self.look.ask(query, entries[: len(scores.p)], tied, self.reader_for, tally) if tied and scores else None
        )
        hits = fuse(shortlist, scores, self.rules.fusion, ties=self.rules.ties, second=second, explain=True)
        return [self._explained(hit) for hit in hits]

    def _score(
        self,
        query: Item,
        shortlist: Sequence[Candidate],
        entries: Sequence[Entry | Unreadable],
        top: int,
        tally: Tally,
    ) -> PairScores | None:
        assert self.look is not None
        budget, calibration = self.rules.budget, self.rules.calibration
        if budget.epsilon is not None and self.look.listwise:
            raise UsageError(
                "The mode choice compares candidates of one call only, and a budget makes several; use --budget all."
            )
        step = len(entries) if budget.epsilon is None else BLOCK
        scores: PairScores | None = None
        done = 0
        while done < len(entries):
            block = self.look.score(query, entries[done : done + step], self.reader_for, tally, among=entries)
            if done == 0:
                self.check()
            scores = _joined(scores, block)
            done += step
            if budget.epsilon is None or calibration is None or scores is None:
                continue
            seen = [(shortlist[i].coarse, float(p)) for i, p in enumerate(scores.p) if scores.status[i] == "ok"]
            left = shortlist[done : len(entries)]
            best = max(candidate.coarse for candidate in shortlist)
            wanted = budget.top or top
            if chance_of_change(seen, left, best, wanted, self.rules.fusion, calibration) < budget.epsilon:
                break
        return scores

    def _explained(self, hit: Hit) -> Hit:
        """With what each look gave to the score, and the calibrated probability."""
        if hit.p is None:
            return hit
        own: dict[str, Any] = {}
        if self.rules.fusion.method == "linear":
            weight = self.rules.fusion.weight
            own = {"from_coarse": weight * hit.coarse, "from_p": (1 - weight) * self.rules.ties.cut(hit.p)}
        if self.rules.calibration is not None:
            own["calibrated"] = self.rules.calibration.probability(hit.p)
        return replace(hit, explain={**(hit.explain or {}), **own})


def _and(hit: Hit, **more: Any) -> Hit:
    return replace(hit, explain={**(hit.explain or {}), **more})


def look_conditions(look: SecondLook | None, rules: Rules) -> Mapping[str, Any]:
    """What the manifest says of the second look."""
    if look is None:
        return {"second_look": None}
    return {**rules.describe(), "second_look": [dict(record) for record in look.describe()]}


def _joined(first: PairScores | None, block: PairScores | None) -> PairScores | None:
    if first is None or block is None:
        return first or block
    n, m = len(first.p), len(block.p)
    labels = max(first.label_logits.shape[1], block.label_logits.shape[1])
    parts = [
        (range(start, start + len(part.p)), part)
        for start, part in ((0, first), (n, block))
        if part.label_logits.shape[1] == labels
    ]
    return scatter(n + m, labels, parts, "missing")
