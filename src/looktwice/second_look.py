"""The second look at one shortlist: which prompt, which candidates could be read, and their scores in order.

Joins `score` (models) with `candidates` (files). Weights load when the first pair is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from looktwice.candidates import Entry, Found, Reader, Unreadable
from looktwice.errors import UsageError
from looktwice.manifest import Tally
from looktwice.score import load_scorer, prompts
from looktwice.score.load import scorer as build_scorer
from looktwice.score.probability import scatter
from looktwice.types import Item, PairScorer, PairScores

AUTO = "auto"
_OF_SCORER = ("path", "batch_size", "as_released", "cache_bytes")


class SecondLook:
    """An MLLM by name with its settings; or a scorer that is already there, which then answers every pair.

    `prompt` "auto" takes, for each query, the first built-in prompt made for its kind (picture, text or both) and that
    of its candidates; any other name holds for all. `options` go to `score.load_scorer`.
    """

    def __init__(self, mllm: str | PairScorer = "tiny-vl", *, prompt: str = AUTO, **options: Any) -> None:
        if prompt != AUTO:
            prompts.get(prompt)  # a wrong name must fail before anything is loaded
        self.mllm = mllm
        self.prompt = prompt
        self._options = options
        self._scorers: dict[str, Any] = {}

    @classmethod
    def of(cls, scorer: SecondLook | PairScorer | str | None, **options: Any) -> SecondLook | None:
        """Whatever names a second look, as one; None stays None."""
        return scorer if scorer is None or isinstance(scorer, SecondLook) else cls(scorer, **options)

    def scorer(self, prompt: str) -> PairScorer:
        """The scorer for a prompt; the weights are loaded once."""
        if not isinstance(self.mllm, str):
            return cast(PairScorer, self._scorers.setdefault("", self.mllm))
        if prompt not in self._scorers:
            known = next(iter(self._scorers.values()), None)
            if known is None:
                self._scorers[prompt] = load_scorer(self.mllm, prompt=prompt, **self._options)
            else:  # the same weights, another question
                kept = {name: self._options[name] for name in _OF_SCORER if name in self._options}
                self._scorers[prompt] = build_scorer(known.mllm, prompts.get(prompt), **kept)
        return cast(PairScorer, self._scorers[prompt])

    def scorer_for(self, query: Item, candidates: Sequence[Item | Entry]) -> PairScorer:
        """The scorer whose prompt fits this query and all of these candidates.

        Raises UsageError, naming prompts that would do, where the chosen prompt cannot show one of the pairs.
        """
        if not isinstance(self.mllm, str):
            return self.scorer("")
        kinds = list(dict.fromkeys(_kind(candidate) for candidate in candidates))
        shown = [_stand_in(*kind) for kind in kinds]
        if self.prompt == AUTO:
            return self.scorer(_common(query, shown))
        for candidate in shown:
            prompts.check(prompts.get(self.prompt), query, candidate)
        return self.scorer(self.prompt)

    def score(
        self, query: Item, candidates: Sequence[Item | Entry | Unreadable], reader: Reader, tally: Tally
    ) -> PairScores | None:
        """Score the candidates in order, None where there are none. One that cannot be read is "missing".

        Adds to `tally`: how many were asked for, what became of each, why some are missing, seconds.
        """
        if not candidates:
            return None
        shown = [candidate for candidate in candidates if not isinstance(candidate, Unreadable)]
        parts: list[tuple[list[int], PairScores]] = []
        for first, chunk in _timed(reader.read(candidates), tally):
            tally.unreadable |= {e.id: e.why for e in chunk if isinstance(e, Unreadable)}
            there = [(first + i, found) for i, found in enumerate(chunk) if isinstance(found, Item)]
            if there:
                scorer = self.scorer_for(query, shown)
                with tally.time("score"):
                    parts.append(([i for i, _ in there], scorer.score(query, [item for _, item in there])))
        labels = parts[0][1].label_logits.shape[1] if parts else 0
        scores = scatter(len(candidates), labels, parts, "missing")
        tally.requested += len(candidates)
        tally.status.update(scores.status)
        return scores

    def describe(self) -> list[Mapping[str, Any]]:
        """What a manifest says: one record per prompt that was used."""
        return [scorer.describe() for scorer in self._scorers.values()]


def _timed(chunks: Iterator[list[Found]], tally: Tally) -> Iterator[tuple[int, list[Found]]]:
    """Number the chunks by their first row; waiting for one counts as reading."""
    first = 0
    while True:
        with tally.time("read"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield first, chunk
        first += len(chunk)


def _common(query: Item, candidates: Sequence[Item]) -> str:
    lists = [prompts.fitting(query, candidate) for candidate in candidates]
    for name in lists[0]:
        if all(name in names for names in lists):
            return name
    raise UsageError("No built-in prompt can show this query with these candidates; write one and pass it as --prompt.")


def _kind(candidate: Item | Entry) -> tuple[bool, bool]:
    text = bool(candidate.text and candidate.text.strip())
    if isinstance(candidate, Entry):
        return candidate.uri is not None, text
    return candidate.image is not None or candidate.tokens is not None, text


def _stand_in(picture: bool, text: bool) -> Item:
    from PIL import Image

    return Item("", image=Image.new("RGB", (1, 1)) if picture else None, text="…" if text else None)
