"""The story: encode the query, search the table, look twice at the shortlist, fuse, hits.

Joins the stages and knows none of their insides; nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.codecs import parse_codec
from looktwice.encode import load_encoder
from looktwice.errors import UsageError
from looktwice.rank import Fusion, Ties
from looktwice.rank.budget import Budget
from looktwice.rank.calibration import Calibration, Sample, source_of
from looktwice.score import Scorer
from looktwice.search.inputs import Asked, as_item
from looktwice.search.mllm_reranker import SecondLook
from looktwice.search.modalities import Direction
from looktwice.search.resolve import in_table
from looktwice.search.run_record import Tally, run_manifest
from looktwice.search.second_stage import Look, Rules, look_conditions
from looktwice.search.token_choice import Readers
from looktwice.sources.loader import in_chunks
from looktwice.sources.prefetch import pixels_of
from looktwice.store import Table, TableReader
from looktwice.types import Candidate, Encoder, Hit, Item

if TYPE_CHECKING:
    from looktwice.sources import Urls
    from looktwice.types import FloatArray

BATCH = 32  # queries encoded and searched together


@dataclass(frozen=True)
class Answer:
    """One query answered.

    `ranking` is the whole shortlist in its new order, candidates that were not looked at below; `hits` are its first k.
    `shortlist` is the same in the order of the first look. `manifest` says what it was made with and what it took.
    """

    query: Item
    shortlist: list[Candidate] = field(repr=False)
    ranking: list[Hit] = field(repr=False)
    k: int
    conditions: Mapping[str, Any] = field(repr=False)
    tally: Tally = field(repr=False)
    least: float | None = None

    @property
    def hits(self) -> list[Hit]:
        """The first k of the ranking; with `least`, those alone whose p is at least that."""
        first = self.ranking[: self.k]
        return first if self.least is None else [hit for hit in first if hit.p is not None and hit.p >= self.least]

    def samples(self, grades: Mapping[str, int]) -> list[Sample]:
        """Return the scored pairs with labels, for `rank.calibration.fit`; junk (below 0) is left out."""
        best = max((candidate.coarse for candidate in self.shortlist), default=0.0)
        return [
            Sample(self.query.id, hit.p, best - hit.coarse, grades.get(hit.id, 0) > 0)
            for hit in self.ranking
            if hit.p is not None and grades.get(hit.id, 0) >= 0
        ]

    @property
    def manifest(self) -> dict[str, Any]:
        """Models and revisions, prompt and its hash, dtype, device, k, fusion, counts, seconds, versions."""
        return run_manifest(self.conditions, self.tally)


class Retriever:
    """Searches one table, with a second look where a scorer is given.

    `table`: a Table, Snapshot or folder; `encoder` is made from what the table remembers unless it is given, and is
    refused (Mismatch) where it is not the one that filled the table. `scorer` is an MLLM's name, a SecondLook with
    settings, or any Scorer. The best `shortlist` candidates get the second look. Weights load at the first search.

    `codec` says what the second look sees of a candidate: "auto" takes the visual tokens that the table holds for this
    MLLM, and its picture where it holds none; "pictures" always the picture; a codec's name insists on those tokens.
    `missing_tokens` is what happens to a candidate without them: "error", "encode" (its picture instead) or "skip".
    `asymmetric` leaves the query's own tokens uncompressed where candidates come from codes.
    `ties`, `direction`, `budget`, `calibration` and `sure`: see `second_stage.Rules`. `urls`: which may be fetched.
    """

    def __init__(
        self,
        table: TableReader | str | Path,
        encoder: Encoder | None = None,
        scorer: Scorer | SecondLook | str | None = None,
        *,
        fusion: Fusion | str | float = "0.5",
        ties: Ties | str = "default",
        shortlist: int = 100,
        direction: Direction | str = "auto",
        budget: Budget | str = "all",
        calibration: Calibration | str | Path | None = None,
        sure: float | None = None,
        codec: str = "auto",
        missing_tokens: str = "error",
        asymmetric: bool = False,
        urls: Urls = "refused",
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.table = table if isinstance(table, TableReader) else Table.open(table)
        self.find = in_table(self.table, urls)
        self.rules = Rules.of(fusion, ties, direction, budget, calibration, sure)
        self.shortlist = positive(shortlist, "shortlist")
        self.look = SecondLook.of(scorer, device=device, dtype=dtype)
        self._encoder = encoder
        self._device, self._dtype = device, dtype
        rough = self.rules.budget.rough and str(parse_codec(self.rules.budget.rough))
        if rough and codec not in ("auto", "pictures") and str(parse_codec(codec)) == rough:
            raise UsageError(f"The cascade's rough tokens and the others are both {rough}; name another --codec.")
        self._readers = Readers(self.table, codec, missing_tokens, asymmetric, besides=rough)
        self._rough = Readers(self.table, rough, missing_tokens, asymmetric) if rough else None
        if encoder is not None:
            self.table.manifest.check(encoder.info, self.table.path)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the table, loaded at first use."""
        if self._encoder is None:
            made_by = self.table.manifest.encoder
            name = made_by.queries or made_by.name
            self._encoder = load_encoder(name, revision=made_by.revision, device=self._device, dtype=self._dtype)
            self.table.manifest.check(self._encoder.info, self.table.path)
        return self._encoder

    def search(self, query: Asked, *, k: int = 10, where: str | None = None, rerank: bool = True) -> Answer:
        """Return the answer to one query: a path, a PIL image, a text, a dict of both or an Item (see `inputs`).

        `where` is a filter in SQL over the table's columns. Raises UsageError for a query that cannot be read, k < 1, a
        filter that cannot be used, and a prompt that cannot show this query.
        """
        return next(self.search_many([as_item(query, "query")], k=k, where=where, rerank=rerank))

    def search_many(
        self, queries: Iterable[Asked], *, k: int = 10, where: str | None = None, rerank: bool = True
    ) -> Iterator[Answer]:
        """Answer queries one after the other, in order; encoding and search run in batches of them.

        A query that is no Item is called by its number: 1, 2, …
        """
        positive(k, "k")
        look = self.look if rerank else None
        asked = (self.rules.direction.query(as_item(query, str(n))) for n, query in enumerate(queries, start=1))
        twice = self._twice(look)
        for batch in in_chunks(asked, lambda query: pixels_of(query.image), BATCH):
            spent = Tally()
            with spent.time("encode"):
                vectors = self._vectors(batch)
            with spent.time("search"):
                shortlists = self.table.search_many(vectors, max(k, self.shortlist), where)
            for query, shortlist in zip(batch, shortlists, strict=True):
                tally = Tally(queries=1, retrieved=len(shortlist), seconds=spent.share(len(batch)))
                ranking = twice.rank(query, shortlist, k, tally)
                yield Answer(query, shortlist, ranking, k, self._conditions(k, where, look), tally, twice.rules.least)

    def _twice(self, look: SecondLook | None) -> Look:
        def check() -> None:
            if self.rules.calibration is not None:
                self.rules.calibration.check(source_of(self._conditions(0, None, look)))

        return Look(look, self.find, self._readers, self.rules, self.shortlist, check, self._rough)

    def _conditions(self, k: int, where: str | None, look: SecondLook | None) -> dict[str, Any]:
        made_by = self.table.manifest.encoder if self._encoder is None else self._encoder.info
        encoder = {name: value for name, value in made_by.record().items() if name != "dim"}
        asked = {"items": len(self.table), "k": k, "shortlist": self.shortlist, "where": where}
        asked |= {"encoder_dtype": made_by.dtype}
        readers = [readers for readers in (self._rough, self._readers) if readers is not None and look is not None]
        seen = {"candidates_from": [record for one in readers for record in one.describe()]} if readers else {}
        return {"encoder": encoder, **asked, **look_conditions(look, self.rules), **seen}

    def _vectors(self, queries: Sequence[Item]) -> FloatArray:
        import numpy as np

        encoder: Encoder = getattr(self.encoder, "for_queries", self.encoder)  # some take queries at another size
        # one at a time: in half precision a vector moves with its batch, and no answer may depend on other queries
        vectors = np.concatenate([encoder.encode([query]) for query in queries])
        for query, vector in zip(queries, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise UsageError(f"The encoder finds nothing to go by in the query {query.id!r}; ask with another one.")
        return vectors


def positive(value: int, name: str) -> int:
    """Return `value`. Raises UsageError where it is below 1."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}.")
    return value
