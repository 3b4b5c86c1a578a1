"""The middle stage: re-order the best of the first look by their stored visual tokens, before the second look.

It needs the vision tower for the query only. A candidate without usable tokens keeps its coarse place. A query that it
cannot help (a text; tokens that are all common) keeps the coarse order, and the run's record says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from threading import Lock
from typing import Any

from looktwice.errors import MediaError, ModelError, UsageError
from looktwice.score import TokenMaker
from looktwice.search.examples import Examples, positives
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import AUTO, IMAGES
from looktwice.sources.loader import CandidateRef
from looktwice.store import TableReader
from looktwice.token_index.matcher import TokenMatcher, TokenScores
from looktwice.token_index.matching import QueryTokens
from looktwice.token_index.sets import demand_tokens, lacking
from looktwice.token_index.tower import is_tower, stored_tower
from looktwice.token_index.zoom import LARGEST, LEAST, RARE
from looktwice.types import Candidate, Encoder, Item

EDGE = 1e-6


@dataclass(frozen=True)
class MiddleLook:
    """A shortlist in the order of the middle look, which fills in `maxsim`. `skipped` says why it did not run ("")."""

    candidates: list[Candidate]
    stats: RunStats
    skipped: str = ""


class MiddleStage:
    """A re-orderer of shortlists by the tokens that `table` stores for the reranker's model, or for a tower.

    It sees the first `depth` candidates. `zoom` compares the query zoomed to its rare tokens, too. `codec` names the
    token set (see `token_index.tower`); "auto" takes the only one. `own` returns the table's encoder, in case it is the
    tower; others are loaded with `placement`. Without a reranker the model of the newest tokens is loaded.
    Raises UsageError if the table stores no tokens.
    """

    def __init__(
        self,
        reranker: MllmReranker | None,
        table: TableReader,
        depth: int,
        codec: str = AUTO,
        own: Callable[[], Encoder] | None = None,
        *,
        zoom: bool = False,
        **placement: Any,
    ) -> None:
        _demand_tokens_in(table)
        self._option = "--maxsim-codec" if codec == IMAGES else "--codec"  # that of the second look names both
        codec = AUTO if codec == IMAGES else codec
        self.tower = stored_tower(table, codec, own, **placement)
        self.reranker = reranker or self._of_newest(table, placement)
        self.table, self.depth, self.zoom = table, depth, zoom
        self.codec = codec if self.tower is None else self.tower.codec
        self._matchers: dict[str, TokenMatcher] = {}
        self._lock = Lock()
        self.turn: Callable[[Callable[[], Any]], Any] = _at_once  # a server lets others come between examples

    @classmethod
    def of(
        cls,
        table: TableReader,
        reranker: MllmReranker | None,
        config: RankingConfig,
        codec: str,
        own: Callable[[], Encoder] | None = None,
        **placement: Any,
    ) -> MiddleStage | None:
        """Return the middle stage of a ranking, or None if it has none. `codec` is that of the second look."""
        if not config.maxsim:
            return None
        named = codec if config.maxsim_codec == AUTO else config.maxsim_codec
        return cls(reranker, table, config.maxsim, named, own, zoom=config.zoom, **placement)

    def look(self, query: Item, shortlist: Sequence[Candidate]) -> MiddleLook:
        """Return the shortlist with its first `depth` candidates in a new order.

        Raises what `open_set` raises, and ModelError if the model cannot be loaded.
        """
        stats = RunStats()
        head = shortlist[: self.depth]
        ids = [candidate.id for candidate in head]
        found: list[TokenScores] = []
        why = "no-image"
        for example in positives(query):
            scores, problem = self.turn(partial(self._scores, example, ids, stats))
            why = problem or why
            found += [] if scores is None else [scores]
        if not found:
            stats.middle[f"skipped: {why}"] += 1
            return MiddleLook(list(shortlist), stats, why)
        join = max if isinstance(query, Examples) and query.rule == "max" else fmean
        joined = {id_: join([one.scores[id_] for one in found]) for id_ in found[0].scores}
        crops = found[0].views if len(found) == 1 else {}
        ordered = [replace(one, crop=crops.get(one.id)) for one in in_place(head, joined)]
        return MiddleLook([*ordered, *shortlist[self.depth :]], stats)

    def reorder(self, query: Item, shortlist: Sequence[Candidate], stats: RunStats) -> list[Candidate] | None:
        """Return `look`'s order, or None if it was skipped; add its counts and seconds to `stats`."""
        looked = self.look(query, shortlist)
        stats.add(looked.stats)
        return None if looked.skipped else looked.candidates

    def settings(self) -> dict[str, Any]:
        """Return the settings of the middle stage for a run's manifest, once it has run."""
        zoom = {"zoom": {"rare": RARE, "least": LEAST, "largest": LARGEST}} if self.zoom else {}
        own = [matcher.settings() for matcher in self._matchers.values()]
        return {"middle_look": [{"depth": self.depth, **one, **zoom} for one in own]}

    def query_tokens(self, query: Item) -> tuple[QueryTokens, TokenMatcher]:
        """Return the query's tokens and their matcher. Raises MediaError or ModelError if the image cannot be used."""
        matcher = self._matcher(query)
        return matcher.query(query, self.zoom), matcher

    def _scores(self, query: Item, ids: Sequence[str], stats: RunStats) -> tuple[TokenScores | None, str]:
        """Return the scores of one image, or why there are none."""
        if query.image is None:
            return None, "no-image"
        with stats.time("load"):
            matcher = self._matcher(query)
        with stats.time("maxsim"):
            try:
                tokens = matcher.query(query, self.zoom)
            except (MediaError, ModelError) as error:
                return None, getattr(error, "reason", "model")
            if tokens.weights is None:
                return None, "common-tokens"
            found = matcher.scores(tokens, ids)
        if not stats.middle:  # several examples meet the same candidates
            stats.middle.update(found.counts)
        return (found, "") if found.scores else (None, "no-tokens")

    def _of_newest(self, table: TableReader, placement: Mapping[str, Any]) -> MllmReranker | None:
        """Return the MLLM of the newest tokens; None with a tower."""
        if self.tower is not None:
            return None
        return MllmReranker([entry["mllm"] for entry in table.manifest.tokens if not is_tower(entry)][-1], **placement)

    def _matcher(self, query: Item) -> TokenMatcher:
        maker = self._maker(query)
        key = repr(maker.tokens_info())
        with self._lock:
            if key not in self._matchers:
                codec = None if self.codec == AUTO else self.codec
                self._matchers[key] = TokenMatcher(self.table, maker, codec, option=self._option)
            return self._matchers[key]

    def _maker(self, query: Item) -> TokenMaker:
        if self.tower is not None:
            return self.tower.maker()
        assert self.reranker is not None
        return demand_tokens(self.reranker.scorer_for(query, [CandidateRef("", "candidate")]))


def _at_once(work: Callable[[], Any]) -> Any:
    return work()


def in_place(shortlist: Sequence[Candidate], scores: Mapping[str, float]) -> list[Candidate]:
    """Order candidates by score. One without a score keeps its place, with a score between its neighbours'.

    >>> [c.id for c in in_place([Candidate("a", 0.9), Candidate("b", 0.8), Candidate("c", 0.7)], {"a": 0.1, "c": 0.3})]
    ['c', 'b', 'a']
    """
    known = [replace(c, maxsim=scores[c.id]) for c in shortlist if c.id in scores]
    known.sort(key=lambda c: (-(c.maxsim or 0.0), -c.coarse, c.id))
    values = [candidate.maxsim or 0.0 for candidate in known]
    placed: list[Candidate] = []
    taken = 0
    for candidate in shortlist:
        if candidate.id in scores:
            placed.append(known[taken])
            taken += 1
        else:
            placed.append(replace(candidate, maxsim=_between(values, taken), estimated=True))
    return placed


def _between(values: Sequence[float], place: int) -> float:
    """Return a number between the descending `values` before and at `place`; beyond the ends, just outside."""
    if not 0 < place < len(values):
        return values[0] + EDGE if place == 0 else values[-1] - EDGE
    return (values[place - 1] + values[place]) / 2


def second_depth(shortlist: Sequence[Candidate], depth: int) -> int:
    """Return how many candidates a second look of this depth sees: no more than the middle look compared, if it ran.

    A score with a part from the middle look cannot be compared with one without it.
    """
    compared = sum(one.maxsim is not None for one in shortlist)
    return min(depth, compared or depth)


def kept_look(table: TableReader, zoom: bool | None) -> tuple[int, bool]:
    """Return the depth of the middle look that a probe of the table recommends (0: none does), and whether it zooms.

    `zoom` None: as the probe did.
    """
    noted = [entry.get("maxsim") or {} for entry in table.manifest.tokens]
    helps = next((one for one in noted if one.get("verdict") == "helps"), None)
    if helps is None:
        return 0, bool(zoom)
    return int(helps["depth"]), bool(helps.get("zoom") if zoom is None else zoom)


def _demand_tokens_in(table: TableReader) -> None:
    if not table.manifest.tokens:
        has, command = lacking(table)
        raise UsageError(
            f"--maxsim compares stored visual tokens, but {table.path} {has} such tokens; leave out --maxsim, or store "
            f"some with: {command}"
        )
