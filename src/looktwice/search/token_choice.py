"""What a scorer is shown of candidates: stored visual tokens of the table, or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from looktwice.codecs import parse_codec
from looktwice.errors import UnknownName
from looktwice.score import Scorer
from looktwice.search.resolve import in_folder, in_table
from looktwice.sources import Urls
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError, Resolver
from looktwice.store import TableReader
from looktwice.token_index import TokenLoader
from looktwice.token_index.reader import POLICIES, Policy
from looktwice.token_index.sets import usable


class CandidateLoader:
    """Finds candidates by id, and loads them for a scorer.

    `codec` "auto" takes the tokens that `table` holds for the scorer's model, and images where it holds none.
    "pictures" always takes images; a codec's name insists on those tokens. "auto" passes over the codec `besides`.
    `missing` says what happens to a candidate without tokens: "error", "encode" (its image instead) or "skip".
    `asymmetric` leaves the query's own tokens uncompressed. Without `table` candidates are images; without `resolve`
    they are items already.
    """

    def __init__(
        self,
        resolve: Resolver | None = None,
        table: TableReader | None = None,
        codec: str = "auto",
        missing: str = "error",
        asymmetric: bool = False,
        *,
        besides: str | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        if codec not in ("auto", "pictures"):
            parse_codec(codec)  # a wrong name is refused as such, whatever the table holds
        self._resolve, self._table, self._codec, self._besides = resolve, table, codec, besides
        self._missing, self._asymmetric = _policy(missing), asymmetric
        self._images = ImageLoader() if cache_bytes is None else ImageLoader(cache_bytes)
        self._made: dict[int, tuple[Scorer, ImageLoader]] = {}  # by id: a scorer need not be hashable

    @classmethod
    def for_table(cls, table: TableReader, urls: Urls = "refused", **how: Any) -> CandidateLoader:
        """Load candidates from the rows of a table; `how` are the other settings."""
        return cls(in_table(table, urls), table, **how)

    @classmethod
    def for_folder(cls, folder: str | Path, urls: Urls = "refused") -> CandidateLoader:
        """Load candidates from the files of a folder, by the ids that indexing it would give."""
        return cls(in_folder(folder, urls))

    def find(self, ids: Sequence[str]) -> list[CandidateRef | LoadError]:
        """Return where each candidate lies, in order."""
        if self._resolve is None:
            raise TypeError("this loader was made without a resolver")
        return self._resolve(ids)

    def for_scorer(self, scorer: Scorer) -> ImageLoader:
        """Return the loader of images or of tokens for this scorer, the same one each time."""
        if id(scorer) not in self._made:
            self._made[id(scorer)] = scorer, self._make(scorer)
        return self._made[id(scorer)][1]

    def settings(self) -> list[Mapping[str, Any]]:
        """Return what a run's manifest says: where candidates came from."""
        loaders = {id(loader): loader for _, loader in self._made.values()}  # several scorers may share one
        return [dict(loader.settings()) for loader in loaders.values()]

    def _make(self, scorer: Scorer) -> ImageLoader:
        codec: str | None = self._codec
        if self._table is None:
            return self._images
        if codec == "auto":
            others = {entry["codec"] for entry in usable(self._table, scorer)} - {self._besides}
            codec = "pictures" if not others else others.pop() if len(others) == 1 else None
        if codec == "pictures":
            return self._images
        return TokenLoader(self._table, scorer, codec, policy=self._missing, asymmetric=self._asymmetric)


def _policy(name: str) -> Policy:
    """Return what is to happen to candidates without stored tokens. Raises UnknownName."""
    if name not in POLICIES:
        raise UnknownName("policy for missing tokens", name, POLICIES)
    return name
