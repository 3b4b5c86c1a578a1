"""`MllmReranker`: an MLLM that scores the candidates of a query; it picks the prompt and caches scores.

Weights load when the first pair is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any, Self, TypeAlias

from looktwice.models.device import place
from looktwice.score import Scorer, ScorerConfig, load_scorer
from looktwice.score.cache import CachedScorer, ScoreCache
from looktwice.score.prompting import built_in
from looktwice.score.readout import modes
from looktwice.score.readout.probability import checked, scatter, select
from looktwice.score.shared_cache import SharedScoreCache
from looktwice.search.prompt_choice import Ref, common_prompt, kinds
from looktwice.search.resolve import UNKNOWN
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import CandidateRef, ImageLoader, Loaded, LoadError
from looktwice.types import SCORED, Item, PairScores

AUTO = "auto"
QUERIES_AT_ONCE = 4  # they keep the window of a server full while one of them waits for its last pair
Rows: TypeAlias = Sequence[tuple[int, Ref]]


class MllmReranker:
    """An MLLM by name with its settings, or an existing scorer that answers every pair.

    `prompt` "auto" takes, for each query, the first built-in prompt that fits its kind (image, text or both) and that
    of its candidates. `cache` is a file of scores, so that an interrupted run can go on: a cached score is that of
    the image as it was indexed. `config` and `settings` are those of `score.load_scorer`. Raises UnknownName.
    """

    def __init__(
        self,
        mllm: str | Scorer | Any = "tiny-vl",
        *,
        prompt: str = AUTO,
        cache: str | Path | ScoreCache | None = None,
        config: ScorerConfig | None = None,
        **settings: Any,
    ) -> None:
        if prompt != AUTO:
            built_in.get(prompt)  # a wrong name must fail before anything is loaded
        self.config = ScorerConfig.of(config, **settings)
        self.mllm: str | Scorer = mllm if isinstance(mllm, str) else Scorer.of(mllm)
        self.prompt = prompt
        self._cache = cache if cache is None or isinstance(cache, ScoreCache) else ScoreCache(cache)
        self._cached: dict[tuple[int, str], CachedScorer] = {}  # by id: a scorer need not be hashable
        self._scorers: dict[str, Scorer] = {}
        self._tie_scorers: dict[str, Scorer] = {}
        self._reason: str | None = None
        self._lock = RLock()  # a server asks from several threads

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings; another process loads the weights itself, and has a cache only if it is shared."""
        cache = self._cache if isinstance(self._cache, SharedScoreCache) else None
        return partial(MllmReranker, self.mllm, prompt=self.prompt, config=self.config, cache=cache), ()

    def __copy__(self) -> Self:
        """Copy the reranker; both share the weights, which a copy by way of `__reduce__` would load again."""
        made = object.__new__(type(self))
        vars(made).update(vars(self))
        return made

    @classmethod
    def of(cls, scorer: MllmReranker | Scorer | str | Any | None, **settings: Any) -> MllmReranker | None:
        """Return a reranker for a name, a scorer or a reranker; None stays None."""
        return scorer if scorer is None or isinstance(scorer, MllmReranker) else cls(scorer, **settings)

    @property
    def revision(self) -> str | None:
        """Return the requested revision of the MLLM."""
        return self.config.revision

    @property
    def listwise(self) -> bool:
        """Return whether scores are comparable only within one call."""
        return self.config.score_mode == modes.CHOICE if isinstance(self.mllm, str) else self.mllm.listwise

    @property
    def together(self) -> int:
        """Return how many queries are best scored at once: several if a server scores them, else one."""
        return QUERIES_AT_ONCE if isinstance(self.mllm, str) and "://" in self.mllm else 1

    @property
    def loaded(self) -> int:
        """Return the number of scorers loaded so far: one for each prompt in use."""
        return len(self._scorers) + len(self._tie_scorers)

    def with_cache(self, share: Callable[[ScoreCache], ScoreCache]) -> MllmReranker:
        """Return a reranker with the same settings whose cache, if any, is what `share` makes of it."""
        cache = None if self._cache is None else share(self._cache)
        return MllmReranker(self.mllm, prompt=self.prompt, config=self.config, cache=cache)

    def expect(self, pairs: int) -> None:
        """Note how many pairs a run asks at most, so that a server's cost is told before the first one."""
        left = max(0, pairs - (0 if self._cache is None else len(self._cache)))
        self.config = replace(self.config, remote=replace(self.config.remote, pairs=left))

    def score(
        self,
        query: Item,
        candidates: Sequence[Ref | LoadError],
        loader: CandidateLoader,
        stats: RunStats,
        among: Sequence[Ref | LoadError] | None = None,
    ) -> PairScores | None:
        """Score the candidates in order; return None for an empty list. An unreadable candidate is "missing".

        A candidate whose id the collection does not have is "failed": it has no image that could come back.
        `among` are all candidates whose scores will be compared with these: one prompt must show them all. Adds each
        candidate's status, the reasons of missing ones, and seconds to `stats`. Raises UsageError, with fitting
        prompts, if the prompt cannot show a pair.
        """
        if not candidates:
            return None
        stats.requested += len(candidates)
        shown = _readable(candidates, stats)
        compared = [c for c in (candidates if among is None else among) if not isinstance(c, LoadError)]
        parts = []
        if shown:
            with stats.time("load"):
                scorer = self.scorer_for(query, compared)
            found = list(self._parts(scorer, query, shown, loader, stats))
            stats.cached += sum(hits for _, _, hits in found)
            parts = [(rows, part) for rows, part, _ in found]
        scores = _without_unknown(candidates, scatter(len(candidates), _labels(parts), parts, "missing"))
        stats.status.update(scores.status)
        return scores

    def ask(
        self,
        query: Item,
        candidates: Sequence[Ref | LoadError],
        tied: Sequence[int],
        loader: CandidateLoader,
        stats: RunStats,
    ) -> PairScores:
        """Score the `tied` candidates by a second, True-or-False question; the others are "missing"."""
        shown = [(i, c) for i in tied if not isinstance(c := candidates[i], LoadError)]
        with stats.time("load"):
            scorer = self.tie_scorer_for(query, [candidate for _, candidate in shown])
        parts = [(rows, part) for rows, part, _ in self._parts(scorer, query, shown, loader, stats)]
        stats.tie_questions += len(shown)
        return scatter(len(candidates), _labels(parts), parts, "missing")

    def scorer(self, prompt: str) -> Scorer:
        """Return the scorer for a prompt. Prompts share one copy of the weights."""
        if isinstance(self.mllm, Scorer):
            return self._scorers.setdefault("", self.mllm)
        with self._lock:
            if prompt not in self._scorers:
                known = next(iter(self._scorers.values()), None)
                if known is None:
                    self._scorers[prompt] = self.load_scorer(prompt)
                else:
                    self._scorers[prompt] = known.with_prompt(prompt)
            return self._scorers[prompt]

    def load_scorer(self, prompt: str) -> Scorer:
        """Load the model with its first prompt; a server puts a queue in front of it here."""
        assert isinstance(self.mllm, str)
        return load_scorer(self.mllm, prompt=prompt, config=self.config)

    def scorer_for(self, query: Item, candidates: Sequence[Ref]) -> Scorer:
        """Return the scorer whose prompt fits this query and all of these candidates. Raises UsageError as `score`."""
        if isinstance(self.mllm, Scorer):
            return self.scorer("")
        shown = kinds(candidates)
        if self.prompt == AUTO:
            return self.scorer(common_prompt(query, shown, self.config.score_mode))
        for candidate in shown:
            built_in.check(built_in.get(self.prompt), query, candidate)
        return self.scorer(self.prompt)

    def tie_scorer_for(self, query: Item, candidates: Sequence[Ref]) -> Scorer:
        """Return the scorer of the second question: the same model, read by labels, without modes and priors.

        Raises UsageError for a scorer that can ask only one question.
        """
        name = common_prompt(query, kinds(candidates), modes.P_TRUE)
        with self._lock:
            if name not in self._tie_scorers:
                first = self.scorer_for(query, candidates)
                self._tie_scorers[name] = first.plain().with_prompt(name, modes.P_LABEL)
            return self._tie_scorers[name]

    def settings(self, asked: Collection[int] | None = None) -> list[Mapping[str, Any]]:
        """Return the settings for a run's manifest: one record per prompt in use, or per scorer that was `asked`."""
        if isinstance(self.mllm, Scorer):
            return [self.mllm.settings()]
        cached = {id(one.inner): one for one in self._cached.values()}
        records: list[Mapping[str, Any]] = []
        for scorer in (*self._scorers.values(), *self._tie_scorers.values()):
            if asked is not None and id(scorer) not in asked:
                continue
            own = cached.get(id(scorer), scorer).settings()
            counted = {name: {"setting": own.get(name), **counts} for name, counts in scorer.stats().items()}
            records.append({**own, **counted, "dtype_reason": self._dtype_reason()})
        return records

    def close(self) -> None:
        """Close the score cache, if any."""
        if self._cache is not None:
            self._cache.close()

    # --- one scorer, some candidates ------------------------------------------------------------------------------

    def _parts(
        self, scorer: Scorer, query: Item, shown: Rows, loader: CandidateLoader, stats: RunStats
    ) -> Iterator[tuple[list[int], PairScores, int]]:
        """Yield rows, their scores and how many were cached: known ones first, then as candidates are read."""
        stats.scorers.add(id(scorer))
        with stats.time("load"):
            source = loader.for_scorer(scorer)
        with stats.time("score"):
            query = source.query(query)
        cached = self._with_cache(scorer, source)
        if cached is not None:
            known, scores = _recalled(cached, query, shown)
            if known:
                yield known, scores, len(known)
            done = set(known)
            shown = [(row, candidate) for row, candidate in shown if row not in done]
        for rows, items in _chunks(source, shown, stats, whole=scorer.listwise):
            with stats.time("score"):
                scores, hits = (scorer.score(query, items), 0) if cached is None else cached.counted(query, items)
                scores = checked(scores, len(items), type(scorer).__name__)
            yield rows, scores, hits

    def _with_cache(self, scorer: Scorer, source: ImageLoader) -> CachedScorer | None:
        if self._cache is None or scorer.listwise:
            return None
        key = (id(scorer), source.tokens_key)
        with self._lock:
            if key not in self._cached:
                self._cached[key] = CachedScorer(scorer, self._cache, source.tokens_key)
            return self._cached[key]

    def _dtype_reason(self) -> str:
        if self._reason is None:
            self._reason = place(self.config.device, self.config.dtype).reason
        return self._reason


def _readable(candidates: Sequence[Ref | LoadError], stats: RunStats) -> Rows:
    """Return readable candidates with their rows; note the others in `stats`."""
    stats.unreadable |= {c.id: c.why for c in candidates if isinstance(c, LoadError)}
    return [(row, c) for row, c in enumerate(candidates) if not isinstance(c, LoadError)]


def _without_unknown(candidates: Sequence[Ref | LoadError], scores: PairScores) -> PairScores:
    """Return the scores with the status "failed" for ids that the collection does not have."""
    unknown = [isinstance(one, LoadError) and one.why.reason == UNKNOWN for one in candidates]
    status = ["failed" if no else status for no, status in zip(unknown, scores.status, strict=True)]
    return replace(scores, status=tuple(status))


def _chunks(source: ImageLoader, shown: Rows, stats: RunStats, whole: bool) -> Iterator[tuple[list[int], list[Item]]]:
    """Yield rows with their items as they are read; with `whole` in one chunk, for scores that compare them."""
    rows = iter([row for row, _ in shown])
    chunks = _timed(source.load([candidate for _, candidate in shown]), stats)
    for chunk in [list(chain.from_iterable(chunks))] if whole else chunks:
        stats.unreadable |= {found.id: found.why for found in chunk if isinstance(found, LoadError)}
        stats.previewed |= {found.id for found in chunk if isinstance(found, Item) and found.preview}
        there = [(row, found) for found, row in zip(chunk, rows, strict=False) if isinstance(found, Item)]
        if there:
            yield [row for row, _ in there], [item for _, item in there]


def _timed(chunks: Iterator[list[Loaded]], stats: RunStats) -> Iterator[list[Loaded]]:
    """Yield the chunks, and count the time spent waiting for them as reading."""
    while True:
        with stats.time("read"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _recalled(cached: CachedScorer, query: Item, shown: Rows) -> tuple[list[int], PairScores]:
    """Return the rows and scores of candidates in the cache, which need no reading."""
    refs = [(row, c) for row, c in shown if isinstance(c, CandidateRef) and (c.uri is None or c.sha256 is not None)]
    known = cached.recall(query, [(c.sha256 if c.uri is not None else None, c.text) for _, c in refs])
    there = [i for i, status in enumerate(known.status) if status in SCORED]
    return [refs[i][0] for i in there], select(known, there)


def _labels(parts: Sequence[tuple[Sequence[int], PairScores]]) -> int:
    return parts[0][1].label_logits.shape[1] if parts else 0
