"""Choose the input of a scorer: the table's stored visual tokens, or images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from looktwice.codecs import parse_codec
from looktwice.errors import warn_renamed
from looktwice.score import Scorer
from looktwice.search.resolve import in_folder, in_table
from looktwice.sources import Urls
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError, Resolver
from looktwice.store import TableReader
from looktwice.token_index import TokenLoader
from looktwice.token_index.reader import policy_named
from looktwice.token_index.sets import usable

AUTO, IMAGES = "auto", "images"


def tokens_wanted(codec: str) -> str:
    """Return the name of the stored tokens to use: "auto", "images" (none) or a codec. Raises UnknownName."""
    if codec == "pictures":
        warn_renamed('codec="pictures"', 'codec="images"')
        return IMAGES
    if codec not in (AUTO, IMAGES):
        parse_codec(codec)  # refuse a wrong name now, whatever the table holds
    return codec


class CandidateLoader:
    """A loader that finds candidates by id, and loads them for a scorer.

    `codec` "auto" takes the tokens that `table` holds for the scorer's model, or images if it holds none. "images"
    always takes images. A codec's name requires those tokens. "auto" ignores the codec `besides`. `missing` is the
    treatment of a candidate without tokens: "error", "encode" (its image instead) or "skip". `asymmetric` keeps the
    query's own tokens uncompressed. Without `table`, candidates are images. Without `resolve`, they are items already.
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
        codec = tokens_wanted(codec)
        self._resolve, self._table, self._codec, self._besides = resolve, table, codec, besides
        self._missing, self._asymmetric = policy_named(missing), asymmetric
        self._images = ImageLoader() if cache_bytes is None else ImageLoader(cache_bytes)
        self._lock = Lock()
        self._made: dict[int, tuple[Scorer, ImageLoader]] = {}  # by id: a scorer need not be hashable

    @classmethod
    def for_table(cls, table: TableReader, urls: Urls = "refused", **how: Any) -> CandidateLoader:
        """Return a loader of the rows of a table; `how` are the other settings."""
        return cls(in_table(table, urls), table, **how)

    @classmethod
    def for_folder(cls, folder: str | Path, urls: Urls = "refused") -> CandidateLoader:
        """Return a loader of the files of a folder, by the ids that indexing it would give."""
        return cls(in_folder(folder, urls))

    @property
    def codec(self) -> str:
        """Return the codec as it was asked for."""
        return self._codec

    def find(self, ids: Sequence[str]) -> list[CandidateRef | LoadError]:
        """Return a reference or a LoadError for each id, in order."""
        if self._resolve is None:
            raise TypeError("this loader has no resolver; use CandidateLoader.for_table or for_folder")
        return self._resolve(ids)

    def for_scorer(self, scorer: Scorer) -> ImageLoader:
        """Return the loader of images or of tokens for this scorer, the same one each time."""
        with self._lock:
            if id(scorer) not in self._made:
                self._made[id(scorer)] = scorer, self._make(scorer)
            return self._made[id(scorer)][1]

    def check(self, scorer: Scorer) -> None:
        """Raise what the first search with this scorer would raise: tokens in several codecs, or none of this one."""
        self._make(scorer)

    def settings(self) -> list[Mapping[str, Any]]:
        """Return the sources of candidates for a run's manifest."""
        loaders = {id(loader): loader for _, loader in self._made.values()}  # several scorers may share one
        return [dict(loader.settings()) for loader in loaders.values()]

    def _make(self, scorer: Scorer) -> ImageLoader:
        codec: str | None = self._codec
        if self._table is None:
            return self._images
        if codec == AUTO:  # of several codecs none is chosen: the loader then asks the user to name one
            others = {entry["codec"] for entry in usable(self._table, scorer)} - {self._besides}
            codec = IMAGES if not others else others.pop() if len(others) == 1 else None
        if codec == IMAGES:
            return self._images
        return TokenLoader(self._table, scorer, codec, policy=self._missing, asymmetric=self._asymmetric)
