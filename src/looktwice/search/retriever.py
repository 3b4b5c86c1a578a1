"""Search a table: encode the query, find a shortlist, rerank it, return hits.

This module joins the stages and knows none of their insides. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.codecs import parse_codec
from looktwice.encode import load_encoder
from looktwice.errors import QueryError, UsageError, renamed_keyword
from looktwice.rank import Fusion, Ties, fuse
from looktwice.rank.budget import Budget
from looktwice.rank.calibration import Calibration, Sample
from looktwice.search.inputs import QueryLike, as_query
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import Direction
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.run_record import RunStats, run_manifest
from looktwice.search.second_stage import SecondStage
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import in_chunks
from looktwice.sources.prefetch import pixels_of
from looktwice.store import Table, TableReader
from looktwice.types import Candidate, Encoder, EncoderInfo, Hit, Item

if TYPE_CHECKING:
    from looktwice.sources import Urls
    from looktwice.types import FloatArray

BATCH = 32  # queries searched together


@dataclass(frozen=True)
class Answer:
    """The answer to one query.

    `ranking` is the whole shortlist in its new order, with unscored candidates below; `hits` are its first k.
    `shortlist` is the same in coarse order. `manifest` holds settings, counts and seconds. `error` is set if the query
    cannot be used; the lists are then empty.
    """

    query: Item
    shortlist: list[Candidate] = field(repr=False)
    ranking: list[Hit] = field(repr=False)
    k: int
    settings: Mapping[str, Any] = field(repr=False)
    stats: RunStats = field(repr=False)
    least_p: float | None = None
    error: QueryError | None = None

    @property
    def hits(self) -> list[Hit]:
        """Return the first k of the ranking; with `least_p`, only those with at least that p."""
        first = self.ranking[: self.k]
        return first if self.least_p is None else [h for h in first if h.p is not None and h.p >= self.least_p]

    def samples(self, grades: Mapping[str, int]) -> list[Sample]:
        """Return the scored pairs with labels, for `rank.calibration.fit`. Grades below 0 (junk) are skipped."""
        best = max((candidate.coarse for candidate in self.shortlist), default=0.0)
        return [
            Sample(self.query.id, hit.p, best - hit.coarse, grades.get(hit.id, 0) > 0, hit.id)
            for hit in self.ranking
            if hit.p is not None and grades.get(hit.id, 0) >= 0
        ]

    @property
    def manifest(self) -> dict[str, Any]:
        """Return models and revisions, prompt and its hash, dtype, device, k, fusion, counts, seconds, versions."""
        return run_manifest(self.settings, self.stats)


class Retriever:
    """A search over one table, with a second look if a scorer is given.

    `table` is a Table, a Snapshot or the folder of a table. `encoder` defaults to the one that filled the table; any
    other raises Mismatch. `scorer` is an MLLM's name, an MllmReranker or any Scorer. The best `shortlist` candidates
    get the second look. Weights load at the first search.

    `codec`, `missing_tokens` and `asymmetric`: see `token_choice.CandidateLoader`. `ties`, `direction`, `budget`,
    `calibration` and `min_precision`: see `ranking_config.RankingConfig`. `urls` says which URLs may be fetched.
    """

    def __init__(
        self,
        table: TableReader | str | Path,
        encoder: Encoder | None = None,
        scorer: MllmReranker | Any | str | None = None,
        *,
        fusion: Fusion | str | float = "0.5",
        ties: Ties | str = "default",
        shortlist: int = 100,
        direction: Direction | str = "auto",
        budget: Budget | str = "all",
        calibration: Calibration | str | Path | None = None,
        min_precision: float | None = None,
        codec: str = "auto",
        missing_tokens: str = "error",
        asymmetric: bool = False,
        urls: Urls = "refused",
        device: str = "auto",
        dtype: str = "auto",
        **renamed: Any,
    ) -> None:
        min_precision = renamed_keyword(renamed, "sure", "min_precision", min_precision)
        if renamed.keys() - {"sure"}:
            raise TypeError(f"Unknown Retriever setting {min(renamed.keys() - {'sure'})!r}; see help(Retriever)")
        self.table = table if isinstance(table, TableReader) else Table.open(table)
        self.config = RankingConfig.of(fusion, ties, direction, budget, calibration, min_precision)
        self.shortlist = positive(shortlist, "shortlist")
        self.reranker = MllmReranker.of(scorer, device=device, dtype=dtype)
        self._encoder = encoder
        self._device, self._dtype = device, dtype
        if encoder is not None:
            self.table.manifest.check(encoder.info, self.table.path)
        how: dict[str, Any] = {"missing": missing_tokens, "asymmetric": asymmetric}
        first_pass = _first_pass(self.config.budget, codec)
        self.loader = CandidateLoader.for_table(self.table, urls, codec=codec, besides=first_pass, **how)
        coarse = CandidateLoader.for_table(self.table, urls, codec=first_pass, **how) if first_pass else None
        self.stage: SecondStage | None = None
        if self.reranker is not None:
            about = self._about(self.table.manifest.encoder)
            parts = self.reranker, self.loader, self.config
            self.stage = SecondStage(*parts, self.shortlist, first_pass=coarse, about=about)

    @property
    def encoder(self) -> Encoder:
        """Return the encoder of the table, loaded at first use."""
        if self._encoder is None:
            made_by = self.table.manifest.encoder
            name = made_by.queries or made_by.name
            self._encoder = load_encoder(name, revision=made_by.revision, device=self._device, dtype=self._dtype)
            self.table.manifest.check(self._encoder.info, self.table.path)
        return self._encoder

    def search(self, query: QueryLike, *, k: int = 10, where: str | None = None, rerank: bool = True) -> Answer:
        """Return the answer to one query: a path, a PIL image, a text, a dict of both or an Item (see `inputs`).

        `where` is a filter in SQL over the table's columns. Raises QueryError for an unusable query, and UsageError for
        k < 1, an unusable filter, and a prompt that cannot show this query.
        """
        answer = next(self.search_many([as_query(query, "query")], k=k, where=where, rerank=rerank))
        if answer.error is not None:
            raise answer.error
        return answer

    def search_many(
        self, queries: Iterable[QueryLike], *, k: int = 10, where: str | None = None, rerank: bool = True
    ) -> Iterator[Answer]:
        """Yield one answer per query, in order. The table is searched for several queries at once.

        The id of a query that is not an Item is its number: 1, 2, … An unusable query gets an answer with an `error`,
        and the others are answered. Raises UsageError for k < 1 and for settings that no query can use.
        """
        positive(k, "k")
        stage = self.stage if rerank else None
        if stage is None and self.config.min_precision is not None:
            raise UsageError(
                "min_precision (--min-precision) needs a second look; leave it out, or search with one (without "
                "rerank=False, --no-rerank)."
            )
        run = {**self._about(self.encoder.info), "items": len(self.table)}
        run |= {"k": k, "shortlist": self.shortlist, "where": where}
        read = (self._read(query, str(number)) for number, query in enumerate(queries, start=1))
        for batch in in_chunks(read, _pixels, BATCH):
            for query, shortlist, stats in self._first_look(batch, max(k, self.shortlist), where):
                if isinstance(query, QueryError):
                    yield Answer(Item(query.query), [], [], k, {**run, "second_look": None}, stats, error=query)
                else:
                    yield self._answer(query, shortlist, stats, stage, k, run)

    def _read(self, query: QueryLike, name: str) -> Item | QueryError:
        try:
            return self.config.direction.query(as_query(query, name))
        except QueryError as error:
            return error

    def _first_look(
        self, batch: Sequence[Item | QueryError], depth: int, where: str | None
    ) -> Iterator[tuple[Item | QueryError, list[Candidate], RunStats]]:
        """Yield each query with its shortlist and its share of the seconds."""
        spent = RunStats()
        with spent.time("encode"):
            vectors = [self._vector(query) for query in batch]
        good = [vector for vector in vectors if not isinstance(vector, QueryError)]
        with spent.time("search"):
            found = iter(self.table.search_many(good, depth, where) if good else ())
        for query, vector in zip(batch, vectors, strict=True):
            stats = RunStats(queries=1, seconds=spent.share(len(batch)))
            if isinstance(vector, QueryError):
                yield vector, [], stats
            else:
                yield query, next(found), stats

    def _vector(self, query: Item | QueryError) -> FloatArray | QueryError:
        """Encode one query on its own, as in half precision a vector changes with its batch."""
        import numpy as np

        if isinstance(query, QueryError):
            return query
        encoder: Encoder = getattr(
            self.encoder, "for_queries", self.encoder
        )  # some encode queries at another image size
        vector: FloatArray = encoder.encode([query])[0]
        if np.isfinite(vector).all():
            return vector
        why = "The encoder returned a zero or non-finite vector for query"
        return QueryError(f"{why} {query.id!r}; try another image or text.", query.id)

    def _answer(
        self,
        query: Item,
        shortlist: list[Candidate],
        stats: RunStats,
        stage: SecondStage | None,
        k: int,
        run: Mapping[str, Any],
    ) -> Answer:
        stats.retrieved = len(shortlist)
        if stage is None:
            ranking = fuse(shortlist, None, self.config.fusion, explain=True)
            return Answer(query, shortlist, ranking, k, {**run, "second_look": None}, stats)
        reranked = stage.rerank(query, shortlist, k)
        stats.add(reranked.stats)
        settings = {**run, **stage.settings()}
        return Answer(query, shortlist, reranked.hits, k, settings, stats, self.config.least_p)

    @staticmethod
    def _about(info: EncoderInfo) -> dict[str, Any]:
        """Return the settings of the first stage for a manifest."""
        encoder = {name: value for name, value in info.record().items() if name != "dim"}
        return {"encoder": encoder, "encoder_dtype": info.dtype}


def _first_pass(budget: Budget, codec: str) -> str | None:
    """Return the codec of a cascade's first pass. Raises UsageError if both passes would use the same codec."""
    if not budget.first_pass:
        return None
    first_pass = str(parse_codec(budget.first_pass))
    if codec not in ("auto", "pictures") and str(parse_codec(codec)) == first_pass:
        raise UsageError(f"Both passes of the cascade would use {first_pass}; name another codec (--codec).")
    return first_pass


def _pixels(query: Item | QueryError) -> int:
    return 0 if isinstance(query, QueryError) else pixels_of(query.image)


def positive(value: int, name: str) -> int:
    """Return `value`. Raises UsageError if it is below 1."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}.")
    return value
