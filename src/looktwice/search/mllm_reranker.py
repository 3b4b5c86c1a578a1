"""The second look at one shortlist: which prompt, which candidates could be read, and their scores in order.

Joins `score` (models) with `sources.loader` (files). Weights load when the first pair is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.models.device import place
from looktwice.score import Scorer, ScorerConfig, load_scorer
from looktwice.score.cache import CachedScorer, ScoreCache, select
from looktwice.score.prompting import built_in
from looktwice.score.readout import modes
from looktwice.score.readout.probability import checked, scatter
from looktwice.search.run_record import Tally
from looktwice.sources.loader import Entry, Found, Reader, Unreadable
from looktwice.types import Item, PairScores, has_words

AUTO = "auto"


class SecondLook:
    """An MLLM by name with its settings; or a scorer that is already there, which then answers every pair.

    `prompt` "auto" takes, for each query, the first built-in prompt made for its kind (picture, text or both) and that
    of its candidates; any other name holds for all. `cache` is a file that remembers scores, so that a run that was
    interrupted goes on where it stopped; such a score is of the picture as it was indexed, which is not read again.
    `options` are the settings of `score.ScorerConfig`; raises UnknownName for one that does not exist.
    """

    def __init__(
        self,
        mllm: str | Scorer = "tiny-vl",
        *,
        prompt: str = AUTO,
        cache: str | Path | None = None,
        **options: Any,
    ) -> None:
        if prompt != AUTO:
            built_in.get(prompt)  # a wrong name must fail before anything is loaded
        self.config = ScorerConfig.of(**options)
        self._given = None if isinstance(mllm, str) else Scorer.of(mllm)
        self._cache = None if cache is None else ScoreCache(cache)
        self._cached: dict[tuple[int, str], CachedScorer] = {}
        self.mllm = mllm
        self.prompt = prompt
        self._scorers: dict[str, Scorer] = {}
        self._askers: dict[str, Scorer] = {}

    @classmethod
    def of(cls, scorer: SecondLook | Scorer | str | None, **options: Any) -> SecondLook | None:
        """Whatever names a second look, as one; None stays None."""
        return scorer if scorer is None or isinstance(scorer, SecondLook) else cls(scorer, **options)

    @property
    def revision(self) -> str | None:
        """The revision of the MLLM that was asked for."""
        return self.config.revision

    def scorer(self, prompt: str) -> Scorer:
        """The scorer for a prompt; the weights are loaded once."""
        if self._given is not None:
            return self._given
        assert isinstance(self.mllm, str)
        if prompt not in self._scorers:
            known = next(iter(self._scorers.values()), None)
            if known is None:
                self._scorers[prompt] = Scorer.of(load_scorer(self.mllm, prompt=prompt, config=self.config))
            else:  # the same weights, another question
                self._scorers[prompt] = known.with_prompt(prompt)
        return self._scorers[prompt]

    def scorer_for(self, query: Item, candidates: Sequence[Item | Entry]) -> Scorer:
        """The scorer whose prompt fits this query and all of these candidates.

        Raises UsageError, naming prompts that would do, where the chosen prompt cannot show one of the pairs.
        """
        if self._given is not None:
            return self._given
        kinds = list(dict.fromkeys(_kind(candidate) for candidate in candidates))
        shown = [_stand_in(*kind) for kind in kinds]
        if self.prompt == AUTO:
            return self.scorer(_common(query, shown, self.config.score_mode))
        for candidate in shown:
            built_in.check(built_in.get(self.prompt), query, candidate)
        return self.scorer(self.prompt)

    def asker_for(self, query: Item, candidates: Sequence[Item | Entry]) -> Scorer:
        """The scorer of a second, True-or-False question about candidates that the first one could not tell apart.

        The same model, read by labels, without what `score_mode` and `prior` add. Raises UsageError for a scorer that
        can ask nothing else.
        """
        name = _common(query, [_stand_in(*kind) for kind in dict.fromkeys(map(_kind, candidates))], modes.P_TRUE)
        if name not in self._askers:
            self._askers[name] = self.scorer_for(query, candidates).plain().with_prompt(name, modes.P_LABEL)
        return self._askers[name]

    def ask(
        self,
        query: Item,
        candidates: Sequence[Item | Entry | Unreadable],
        which: Sequence[int],
        reader_for: Callable[[Scorer], Reader],
        tally: Tally,
    ) -> PairScores:
        """Answers to the second question about the candidates in `which`; the others are "missing"."""
        shown = [(i, c) for i in which if not isinstance(c := candidates[i], Unreadable)]
        asker = partial(self.asker_for, query, [candidate for _, candidate in shown])
        parts = list(self._parts(query, shown, reader_for, tally, asker))
        tally.asked_again += len(shown)
        return scatter(len(candidates), parts[0][1].label_logits.shape[1] if parts else 0, parts, "missing")

    def score(
        self,
        query: Item,
        candidates: Sequence[Item | Entry | Unreadable],
        reader_for: Callable[[Scorer], Reader],
        tally: Tally,
        among: Sequence[Item | Entry | Unreadable] | None = None,
    ) -> PairScores | None:
        """Score the candidates in order, None where there are none. One that cannot be read is "missing".

        `among`: all that these are some of, as their scores are to be compared and one prompt must show them all.
        `reader_for` gives what reads candidates for a scorer: picture files or stored tokens. Adds to `tally`: how many
        were asked for, what became of each, why some are missing, seconds.
        """
        if not candidates:
            return None
        tally.requested += len(candidates)
        tally.unreadable |= {c.id: c.why for c in candidates if isinstance(c, Unreadable)}
        shown = [(row, c) for row, c in enumerate(candidates) if not isinstance(c, Unreadable)]
        fit = [c for c in (candidates if among is None else among) if not isinstance(c, Unreadable)]
        scorer = partial(self.scorer_for, query, fit)
        before = self._hits
        parts = list(self._parts(query, shown, reader_for, tally, scorer)) if shown else []
        tally.remembered += self._hits - before
        labels = parts[0][1].label_logits.shape[1] if parts else 0
        scores = scatter(len(candidates), labels, parts, "missing")
        tally.status.update(scores.status)
        return scores

    def _parts(
        self,
        query: Item,
        shown: Sequence[tuple[int, Item | Entry]],
        reader_for: Callable[[Scorer], Reader],
        tally: Tally,
        choose: Callable[[], Scorer],
    ) -> Iterator[tuple[list[int], PairScores]]:
        """Rows and their scores, chunk by chunk as they are read."""
        with tally.time("load"):
            scorer = choose()
            reader = reader_for(scorer)
            asked = self._remembering(scorer, reader)
        with tally.time("score"):
            query = reader.query(query)
        if isinstance(asked, CachedScorer):
            known, scores = _recalled(asked, query, shown)
            if known:
                yield known, scores
            done = set(known)
            shown = [(row, candidate) for row, candidate in shown if row not in done]
        rows, left = iter([row for row, _ in shown]), [candidate for _, candidate in shown]
        whole = scorer.listwise and left  # a score says nothing beside those of another call
        for chunk in _timed(_joined(reader.read(left)) if whole else reader.read(left), tally):
            tally.unreadable |= {found.id: found.why for found in chunk if isinstance(found, Unreadable)}
            there = [(row, found) for found, row in zip(chunk, rows, strict=False) if isinstance(found, Item)]
            if there:
                with tally.time("score"):
                    scores = checked(asked.score(query, [item for _, item in there]), len(there), type(scorer).__name__)
                yield [row for row, _ in there], scores

    @property
    def listwise(self) -> bool:
        """Whether a score says nothing without the others of its call."""
        return self.config.score_mode == modes.CHOICE if self._given is None else self._given.listwise

    def close(self) -> None:
        """Close the score cache, where there is one."""
        if self._cache is not None:
            self._cache.close()

    @property
    def _hits(self) -> int:
        return sum(cached.hits for cached in self._cached.values())

    def _remembering(self, scorer: Scorer, reader: Reader) -> Scorer:
        if self._cache is None or scorer.listwise:
            return scorer
        key = (id(scorer), str(reader.describe().get("tokens_key", "")))
        if key not in self._cached:
            self._cached[key] = CachedScorer(scorer, self._cache, key[1])
        return self._cached[key]

    def describe(self) -> list[Mapping[str, Any]]:
        """What a manifest says: one record per prompt that was used."""
        if self._given is not None:
            return [self._given.settings()]
        reason = place(self.config.device, self.config.dtype).reason
        remembering = {id(cached.inner): cached for cached in self._cached.values()}
        records: list[Mapping[str, Any]] = []
        for scorer in (*self._scorers.values(), *self._askers.values()):
            own = remembering.get(id(scorer), scorer).settings()
            counted = {name: {"setting": own.get(name), **counts} for name, counts in scorer.stats().items()}
            records.append({**own, **counted, "dtype_reason": reason})
        return records


def _recalled(
    asked: CachedScorer, query: Item, shown: Sequence[tuple[int, Item | Entry]]
) -> tuple[list[int], PairScores]:
    """Rows, with their scores, of candidates that need not even be read."""
    entries = [(row, c) for row, c in shown if isinstance(c, Entry) and (c.uri is None or c.sha256 is not None)]
    known = asked.recall(query, [(c.sha256 if c.uri is not None else None, c.text) for _, c in entries])
    there = [i for i, status in enumerate(known.status) if status == "ok"]
    return [entries[i][0] for i in there], select(known, there)


def _joined(chunks: Iterator[list[Found]]) -> Iterator[list[Found]]:
    yield [found for chunk in chunks for found in chunk]


def _timed(chunks: Iterator[list[Found]], tally: Tally) -> Iterator[list[Found]]:
    """The chunks; waiting for one counts as reading."""
    while True:
        with tally.time("read"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _common(query: Item, candidates: Sequence[Item], mode: str) -> str:
    """The first prompt that shows all pairs and asks for what the mode reads."""
    lists = [built_in.fitting(query, candidate) for candidate in candidates]
    for name in lists[0]:
        if all(name in names for names in lists) and modes.suits(mode, built_in.get(name)):
            return name
    raise UsageError("No built-in prompt can show this query with these candidates; write one and pass it as --prompt.")


def _kind(candidate: Item | Entry) -> tuple[bool, bool]:
    text = has_words(candidate.text)
    if isinstance(candidate, Entry):
        return candidate.uri is not None, text
    return candidate.image is not None or candidate.tokens is not None, text


def _stand_in(picture: bool, text: bool) -> Item:
    from PIL import Image

    return Item("", image=Image.new("RGB", (1, 1)) if picture else None, text="…" if text else None)
