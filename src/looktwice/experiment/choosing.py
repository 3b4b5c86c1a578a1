"""Choose a prompt and a fusion on labelled queries, and measure the choice on queries that had no part in it.

1. Candidates: for every prompt, weights of 0, 0.1 … 1, and a logistic stack (`rank.stack`) fitted by scikit-learn.
2. The choice on some queries: the best mean. A stack counts with its mean on inner folds that did not fit it. Of equals
   the default wins.
3. The gain: the choice is made on four fifths of the queries and measured on the last fifth, five times. Queries that
   share a relevant item stay in one fold, and count as one when the interval is drawn.

So what is measured is the whole procedure, and no query is measured by what it chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from looktwice.experiment.gain import Gain, demand_groups, folds
from looktwice.experiment.labelled import Labelled, groups_of
from looktwice.experiment.systems import THREE_WEIGHTS, WEIGHTS
from looktwice.rank import Fusion
from looktwice.rank.stack import BIAS, FEATURES, Stack, features

INNER = 3  # folds inside a fold
TIE = 1e-9


@dataclass(frozen=True)
class PromptFusion:
    """A prompt and a fusion; `stacked` says that the fusion is a stack, which is fitted anew on other queries."""

    prompt: str
    fusion: Fusion
    stacked: bool = False


@dataclass(frozen=True)
class Selection:
    """The choice on all queries, what it gains on queries that chose nothing, and what was chosen without each fold."""

    choice: PromptFusion
    default: PromptFusion
    gain: Gain
    folds: Sequence[str]

    def record(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        chosen = {"prompt": self.choice.prompt, "fusion": str(self.choice.fusion)}
        return {**chosen, **self.gain.record(), "default": str(self.default.fusion), "folds": list(self.folds)}


@dataclass
class Chooser:
    """Chooses among the answers of several prompts; the first prompt with the fusion `default` is the default.

    `answers` maps a prompt to the answers of the same queries. Raises UsageError for fewer than five groups of queries,
    or if no query has a relevant item.
    """

    answers: Mapping[str, Sequence[Labelled]]
    default: Fusion
    measure: str
    _values: dict[tuple[str, Fusion], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_groups(self.groups, "Tuning")

    @cached_property
    def groups(self) -> dict[str, str]:
        """Return the group of each query that has a relevant item."""
        known = {one.query: one.grades for one in next(iter(self.answers.values()))}
        return groups_of({name: grades for name, grades in known.items() if any(g > 0 for g in grades.values())})

    @cached_property
    def weights(self) -> tuple[Fusion, ...]:
        """Return the weights to try: three where there is a middle look."""
        some = next(iter(self.answers.values()))
        return THREE_WEIGHTS if any(c.maxsim is not None for one in some for c in one.shortlist) else WEIGHTS

    def select(self) -> Selection:
        """Choose on all queries, and measure the choice by cross-validation."""
        first = PromptFusion(next(iter(self.answers)), self.default)
        before = self._of(first.prompt, first.fusion, list(self.groups))
        after: dict[str, float] = {}
        told = []
        for train, held in folds(self.groups):
            choice = self.choose(train)
            told.append(f"{choice.prompt}: {'stack' if choice.stacked else choice.fusion}")
            after |= self._of(choice.prompt, choice.fusion, held)
        return Selection(self.choose(list(self.groups)), first, Gain.of(before, after, self.groups), told)

    def choose(self, queries: Sequence[str]) -> PromptFusion:
        """Return the best prompt and fusion on these queries; a stack is fitted on all of them."""
        best = PromptFusion(next(iter(self.answers)), self.default)
        value = self._mean(best.prompt, best.fusion, queries)
        for prompt in self.answers:
            for fusion in self.weights:
                if (found := self._mean(prompt, fusion, queries)) > value + TIE:
                    best, value = PromptFusion(prompt, fusion), found
            if (found := self._stacked(prompt, queries)) > value + TIE:
                best, value = PromptFusion(prompt, self.stack(prompt, queries), True), found
        return best

    def stack(self, prompt: str, queries: Sequence[str]) -> Fusion:
        """Return a stack fitted on these queries; the default if they hold pairs of one kind only."""
        made = fitted([one for one in self.answers[prompt] if one.query in set(queries)])
        return self.default if made is None else Fusion("stack", 0.0, stack=made)

    def _stacked(self, prompt: str, queries: Sequence[str]) -> float:
        """Return the mean of stacks on inner folds that did not fit them."""
        own = {query: self.groups[query] for query in queries}
        found: list[float] = []
        for train, held in folds(own, min(INNER, len(set(own.values())))):
            found += self._of(prompt, self.stack(prompt, train), held).values()
        return float(np.mean(found))

    def _mean(self, prompt: str, fusion: Fusion, queries: Sequence[str]) -> float:
        return float(np.mean([*self._of(prompt, fusion, queries).values()]))

    def _of(self, prompt: str, fusion: Fusion, queries: Sequence[str]) -> dict[str, float]:
        known = self._values.setdefault((prompt, fusion), {})
        wanted = set(queries) - known.keys()
        known |= {one.query: one.value(fusion, self.measure) for one in self.answers[prompt] if one.query in wanted}
        return {query: known[query] for query in queries}


def fitted(answers: Sequence[Labelled]) -> Stack | None:
    """Return the stack fitted to labelled pairs; None if all are of one kind.

    Features that are unknown for a pair, or the same for all, are left out. Each is standardised for the fit, and the
    weights are those of the plain features.
    """
    from sklearn.linear_model import LogisticRegression

    rows = [(one, [i for i in range(len(one.scores.p)) if one.known(i)]) for one in answers]
    labels = np.array([one.relevant(i) for one, known in rows for i in known], bool)
    if not len(labels) or labels.all() or not labels.any():
        return None
    found = [features(one.shortlist, one.scores, known) for one, known in rows]
    columns = {name: np.array([x for one in found for x in one[name]], np.float64) for name in FEATURES}
    if np.array_equal(columns["maxsim"], columns["coarse"]):
        del columns["maxsim"]  # there was no middle look
    used = {name: x for name, x in columns.items() if np.isfinite(x).all() and x.std() > TIE}
    middle, spread = (np.array([getattr(x, what)() for x in used.values()]) for what in ("mean", "std"))
    model = LogisticRegression(max_iter=1000).fit((np.stack([*used.values()], 1) - middle) / spread, labels)
    weights = model.coef_[0] / spread
    bias = float(model.intercept_[0] - weights @ middle)
    return Stack(((BIAS, bias), *((name, float(w)) for name, w in zip(used, weights, strict=True))))
