"""The story: encode the query, search the table, look twice at the shortlist, fuse, hits.

Joins the stages and knows none of their insides; nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.candidates import Entry, Find, Reader, Unreadable, in_table
from looktwice.encode import load_encoder
from looktwice.errors import UnknownName, UsageError
from looktwice.inputs import Asked, as_item
from looktwice.manifest import Tally, run_manifest
from looktwice.rank import Fusion, Ties, fuse, tied_at_the_top
from looktwice.second_look import SecondLook
from looktwice.store import Table
from looktwice.token_index import TokenReader, TokenScorer
from looktwice.token_index.reader import POLICIES, Policy
from looktwice.token_index.sets import matching
from looktwice.types import Candidate, Encoder, Hit, Item, PairScorer

if TYPE_CHECKING:
    from looktwice.evaluate import Run
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

    @property
    def hits(self) -> list[Hit]:
        """The first k of the ranking."""
        return self.ranking[: self.k]

    @property
    def manifest(self) -> dict[str, Any]:
        """Models and revisions, prompt and its hash, dtype, device, k, fusion, counts, seconds, versions."""
        return run_manifest(self.conditions, self.tally)


@dataclass(frozen=True, slots=True)
class Rules:
    """How two looks become one ranking."""

    fusion: Fusion
    ties: Ties


class Retriever:
    """Searches one table, with a second look where a scorer is given.

    `table` is a Table or the folder of one; `encoder` is made from what the table remembers unless it is given, and is
    refused (Mismatch) where it is not the one that filled the table. `scorer` is an MLLM's name, a SecondLook with
    settings, or any PairScorer. The best `shortlist` candidates get the second look. Weights load at the first search.

    `codec` says what the second look sees of a candidate: "auto" takes the visual tokens that the table holds for this
    MLLM, and its picture where it holds none; "pictures" always the picture; a codec's name insists on those tokens.
    `missing_tokens` is what happens to a candidate without them: "error", "encode" (its picture instead) or "skip".
    """

    def __init__(
        self,
        table: Table | str | Path,
        encoder: Encoder | None = None,
        scorer: PairScorer | SecondLook | str | None = None,
        *,
        fusion: Fusion | str = "0.5",
        ties: Ties | str = "default",
        shortlist: int = 100,
        codec: str = "auto",
        missing_tokens: str = "error",
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.table = table if isinstance(table, Table) else Table.open(table)
        self.rules = Rules(Fusion.parse(fusion), Ties.parse(ties))
        self.shortlist = _positive(shortlist, "shortlist")
        self.look = SecondLook.of(scorer, device=device, dtype=dtype)
        self._encoder = encoder
        self._device, self._dtype = device, dtype
        self._readers = Readers(self.table, codec, missing_tokens)
        if encoder is not None:
            self.table.manifest.check(encoder.info, self.table.path)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the table, loaded at first use."""
        if self._encoder is None:
            made_by = self.table.manifest.encoder
            self._encoder = load_encoder(
                made_by.name, revision=made_by.revision, device=self._device, dtype=self._dtype
            )
            self.table.manifest.check(self._encoder.info, self.table.path)
        return self._encoder

    def search(self, query: Asked, *, k: int = 10, where: str | None = None, rerank: bool = True) -> Answer:
        """Return the answer to one query: a path, a PIL image, a text, a dict of both or an Item (see `inputs`).

        `where` is a filter in SQL over the table's columns. Raises UsageError for a query that cannot be read, k < 1, a
        filter that cannot be used, and a prompt that cannot show this query.
        """
        return next(self.search_many([as_item(query, "query")], k=k, where=where, rerank=rerank))

    def search_many(
        self, queries: Iterable[Item], *, k: int = 10, where: str | None = None, rerank: bool = True
    ) -> Iterator[Answer]:
        """Answer queries one after the other, in order; encoding and search run in batches of them."""
        _positive(k, "k")
        look = self.look if rerank else None
        waiting = iter(queries)
        while batch := list(islice(waiting, BATCH)):
            spent = Tally()
            with spent.time("encode"):
                vectors = self._vectors(batch)
            with spent.time("search"):
                shortlists = self.table.search_many(vectors, max(k, self.shortlist), where)
            for query, shortlist in zip(batch, shortlists, strict=True):
                tally = Tally(queries=1, retrieved=len(shortlist), seconds=spent.share(len(batch)))
                find = in_table(self.table)
                ranking = look_twice(query, shortlist, look, find, self._readers, self.rules, self.shortlist, tally)
                yield Answer(query, shortlist, ranking, k, self._conditions(k, where, look), tally)

    def _conditions(self, k: int, where: str | None, look: SecondLook | None) -> dict[str, Any]:
        made_by = self.table.manifest.encoder
        encoder = {"name": made_by.name, "revision": made_by.revision, "preprocessing": made_by.preprocessing}
        asked = {"items": len(self.table), "k": k, "shortlist": self.shortlist, "where": where}
        seen = self._readers.describe() if look is not None else {}
        return {"encoder": encoder, **asked, **_look_conditions(look, self.rules), **seen}

    def _vectors(self, queries: Sequence[Item]) -> FloatArray:
        import numpy as np

        encoder: Encoder = getattr(self.encoder, "for_queries", self.encoder)  # some take queries at another size
        vectors = encoder.encode(queries)
        for query, vector in zip(queries, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise UsageError(f"The encoder finds nothing to go by in the query {query.id!r}; ask with another one.")
        return vectors


class Readers:
    """What reads candidates of a table for a scorer: its stored tokens or its pictures; see Retriever's `codec`."""

    def __init__(self, table: Table, codec: str = "auto", missing: str = "error") -> None:
        self._table, self._codec, self._missing = table, codec, _policy(missing)
        self._pictures = Reader()
        self._made: dict[int, Reader] = {}

    def __call__(self, scorer: PairScorer) -> Reader:
        """The reader for this scorer, the same one each time."""
        if id(scorer) not in self._made:
            self._made[id(scorer)] = self._make(scorer)
        return self._made[id(scorer)]

    def _make(self, scorer: PairScorer) -> Reader:
        stored = (
            self._codec == "auto" and isinstance(scorer, TokenScorer) and matching(self._table, scorer.tokens_info())
        )
        if self._codec == "pictures" or (self._codec == "auto" and not stored):
            return self._pictures
        return TokenReader(self._table, scorer, None if stored else self._codec, policy=self._missing)

    def describe(self) -> Mapping[str, Any]:
        """What the manifest says: where candidates came from."""
        return {"candidates_from": [dict(reader.describe()) for reader in self._made.values()]}


def rerank_run(
    run: Run,
    queries: Iterable[Item],
    find: Find,
    look: SecondLook,
    *,
    reader_for: Callable[[PairScorer], Reader] | None = None,
    fusion: Fusion | str = "0.5",
    ties: Ties | str = "default",
    shortlist: int = 100,
    k: int = 10,
) -> Iterator[Answer]:
    """Look twice at somebody else's shortlists: for every query that `run` has one for, in the order of `queries`.

    Raises UsageError where scores that are no cosines would be weighed against probabilities, and where no candidate of
    a whole run is to be found.
    """
    rules = Rules(Fusion.parse(fusion), Ties.parse(ties))
    _check_scale(run, rules.fusion)
    _check_ids(run, find)
    asked = {"k": _positive(k, "k"), "shortlist": _positive(shortlist, "shortlist")}
    reader = Reader()
    for query in queries:
        if query.id not in run:
            continue
        candidates = [Candidate(document, score) for document, score in run[query.id]]
        tally = Tally(queries=1, retrieved=len(candidates))
        ranking = look_twice(query, candidates, look, find, reader_for or (lambda _: reader), rules, shortlist, tally)
        yield Answer(query, candidates, ranking, k, asked | _look_conditions(look, rules), tally)


def look_twice(
    query: Item,
    shortlist: Sequence[Candidate],
    look: SecondLook | None,
    find: Find,
    reader_for: Callable[[PairScorer], Reader],
    rules: Rules,
    depth: int,
    tally: Tally,
) -> list[Hit]:
    """Rank one shortlist: its best `depth` by both looks, the rest below them as the first look had it."""
    scores = second = None
    if look is not None:
        with tally.time("read"):
            entries: list[Entry | Unreadable] = find([candidate.id for candidate in shortlist[:depth]])
        scores = look.score(query, entries, reader_for, tally)
        tied = [] if scores is None else tied_at_the_top(shortlist, scores, rules.fusion, rules.ties)
        second = look.ask(query, entries, tied, reader_for, tally) if tied else None
    return fuse(shortlist, scores, rules.fusion, ties=rules.ties, second=second, explain=True)


def _look_conditions(look: SecondLook | None, rules: Rules) -> dict[str, Any]:
    if look is None:
        return {"second_look": None}
    return {
        "fusion": str(rules.fusion),
        "ties": str(rules.ties),
        "second_look": [dict(record) for record in look.describe()],
    }


def _policy(name: str) -> Policy:
    """What is to happen to candidates without stored tokens. Raises UnknownName."""
    if name not in POLICIES:
        raise UnknownName("policy for missing tokens", name, POLICIES)
    return name


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}.")
    return value


def _check_ids(run: Run, find: Find) -> None:
    """Ids that are all unknown are spelled another way; nobody wants to wait for a run of nothing but "missing"."""
    some = list(dict.fromkeys(document for documents in run.values() for document, _ in documents[:10]))[:1000]
    if some and all(isinstance(found, Unreadable) for found in find(some)):
        raise UsageError(
            f"None of the shortlist's ids is in the collection ({some[0]!r}, …); ids must be spelled as there."
        )


def _check_scale(run: Run, fusion: Fusion) -> None:
    """A weighted sum of a BM25 score of 17 and a probability would be the BM25 order with a mark of quality on it."""
    scores = [score for documents in run.values() for _, score in documents]
    if scores and fusion.method == "linear" and fusion.weight and not -1.01 <= min(scores) <= max(scores) <= 1.01:
        raise UsageError(
            f"The shortlist's scores run from {min(scores):g} to {max(scores):g}; a weighted fusion needs cosines. Use "
            "--fusion rrf (ranks) or --fusion p-only."
        )
