"""Search a table: encode the query, find a shortlist, rerank it, return hits.

This module joins the stages and knows none of their insides. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.codecs import parse_codec
from looktwice.encode import load_encoder, query_encoder
from looktwice.errors import QueryError, UsageError, renamed_keyword
from looktwice.rank import Fusion, Ties, Tuned, fuse
from looktwice.rank.budget import Budget
from looktwice.rank.calibration import Calibration
from looktwice.search.answer import Answer
from looktwice.search.at_once import in_order
from looktwice.search.crop_look import CropLook
from looktwice.search.details import describe_from
from looktwice.search.distinct import least_cosine, with_folded
from looktwice.search.examples import Examples, settings_of
from looktwice.search.first_look import FirstLook, ShortlistResult
from looktwice.search.hubness import Hubness
from looktwice.search.inputs import QueryLike
from looktwice.search.middle_stage import MiddleStage, kept_look
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import Direction
from looktwice.search.query_reader import QueryReader, read_call
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.second_stage import SecondStage
from looktwice.search.token_choice import AUTO, IMAGES, CandidateLoader, tokens_wanted
from looktwice.sources.loader import in_chunks
from looktwice.sources.reading import NEWEST
from looktwice.store import TableGroup, TableReader, Where
from looktwice.types import Encoder, EncoderInfo, Item

if TYPE_CHECKING:
    from looktwice.sources import Urls

BATCH = 32  # queries searched together


class Retriever:
    """A search over one table, with a second look if a scorer is given.

    `table` is a Table, a Snapshot or the folder of a table; or a list of them, to be searched as one (see
    `store.TableGroup`). `encoder` defaults to the one that filled the table; any other raises Mismatch. `scorer` (or
    `mllm`) is an MLLM's name, an MllmReranker or any Scorer. The best `shortlist` candidates get the second look,
    but none that a middle look did not compare. Weights load at the first search. Each search answers from the newest
    version of a table, whoever wrote it; a Snapshot never changes.

    `maxsim` is the number of candidates that a middle look re-orders by their stored tokens before the second look
    sees the first of them (0: no middle look; None: as `looktwice maxsim --keep` noted in the table). `hubness` "bank"
    takes hubs out of text queries' shortlists (see `search.hubness`). `codec`, `missing_tokens` and `asymmetric`: see
    `token_choice.CandidateLoader`. `ties`, `direction`, `budget`, `calibration`, `min_precision`, `maxsim_codec`,
    `zoom` and `shown`: see `ranking_config.RankingConfig`. `urls` says which URLs may be fetched.
    """

    def __init__(
        self,
        table: TableReader | str | Path | Sequence[TableReader | str | Path],
        encoder: Encoder | None = None,
        scorer: MllmReranker | Any | str | None = None,
        *,
        mllm: str | None = None,
        fusion: Fusion | Tuned | str | float = "auto",
        ties: Ties | str = "default",
        shortlist: int = 100,
        maxsim: int | None = None,
        maxsim_codec: str = "auto",
        zoom: bool | None = None,
        shown: str = "whole",
        hubness: str = "off",
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
        self.table = TableGroup.open(table)
        rules = fusion, ties, direction, budget, calibration, min_precision
        if maxsim is None and (scorer or mllm) is not None:
            maxsim, zoom = kept_look(self.table, zoom)
        self.config = RankingConfig.of(*rules, maxsim or 0, maxsim_codec, shown, bool(zoom))
        self.shortlist, self.hubness = positive(shortlist, "shortlist"), Hubness(hubness)
        if hubness != "off" and (self.config.calibration or self.config.tuned) is not None:
            what = "tuned fusion" if self.config.calibration is None else "calibration"
            raise UsageError(f"A {what} holds for plain cosines; leave out hubness (--hubness) or the {what}.")
        if scorer is not None and mllm is not None:
            raise UsageError("scorer and mllm both name the second look; pass only one of them.")
        self.reranker = MllmReranker.of(scorer if mllm is None else mllm, device=device, dtype=dtype)
        self._encoder, self._device, self._dtype = encoder, device, dtype
        if encoder is not None:
            self.table.manifest.check(encoder.info, self.table.path)
        loading: dict[str, Any] = {"missing": missing_tokens, "asymmetric": asymmetric}
        codec = tokens_wanted(codec)
        first_pass = _first_pass(self.config.budget, codec)
        self.loader = CandidateLoader.for_table(self.table, urls, codec=codec, besides=first_pass, **loading)
        coarse = CandidateLoader.for_table(self.table, urls, codec=first_pass, **loading) if first_pass else None
        self.reader = QueryReader(self.table, self.loader, self.config.direction)
        placed: dict[str, Any] = {"own": lambda: self.encoder, "device": device, "dtype": dtype}
        self.middle = MiddleStage.of(self.table, self.reranker, self.config, codec, **placed)
        self.stage: SecondStage | None = None
        if self.reranker is not None:
            about, crops = self._about(self.table.manifest.encoder), CropLook.of(self.config, self.middle, self.loader)
            more: dict[str, Any] = {"first_pass": coarse, "about": about, "crops": crops}
            self.stage = SecondStage(self.reranker, self.loader, self.config, self.shortlist, **more)

    @property
    def encoder(self) -> Encoder:
        """Return the encoder of the table, loaded at first use."""
        if self._encoder is None and self.table.manifest.encoder.queries is None:
            self._encoder = self.table.encoder
        if self._encoder is None:
            made_by = self.table.manifest.encoder
            name = made_by.queries or made_by.name
            self._encoder = load_encoder(name, revision=made_by.revision, device=self._device, dtype=self._dtype)
            self.table.manifest.check(self._encoder.info, self.table.path)
        return self._encoder

    def search(
        self,
        query: QueryLike | Sequence[QueryLike] | None = None,
        *,
        like: Sequence[QueryLike] = (),
        unlike: Sequence[QueryLike] = (),
        examples: str = "mean",
        k: int = 10,
        where: Where | None = None,
        rerank: bool = True,
        distinct: bool | float = False,
    ) -> Answer:
        """Return the answer to one query: a path, a PIL image, a text, a dict of both or an Item (see `inputs`).

        A list is one query of several positive examples. `like` adds positive examples and `unlike` negative ones; in
        lists a str may also be the id of an item, which the answer leaves out. `examples` joins the second look's
        scores of the positive ones: "max" or "mean" (see `search.examples`). `where` is a filter over the table's
        columns, in SQL or as a dict: {"price": {"<": 20}, "shop": "a"}. `distinct` folds near-duplicates into the best
        of them: from a cosine of 0.97 on, or from the one given. Raises QueryError for an unusable query, and
        UsageError for k < 1, an unusable filter, and a prompt that cannot show this query.
        """
        if like or unlike or isinstance(query, list | tuple | Mapping):
            self.table.follow()  # examples may name items that somebody has just added; `search_many` follows anyway
        shown = rerank and self.stage is not None
        asked = read_call(self.reader, query, like, unlike, examples, shown)
        answer = next(self.search_many([asked], k=k, where=where, rerank=rerank, distinct=distinct))
        if answer.error is not None:
            raise answer.error
        return answer

    def search_many(
        self,
        queries: Iterable[QueryLike | Sequence[QueryLike]],
        *,
        k: int = 10,
        where: Where | None = None,
        rerank: bool = True,
        distinct: bool | float = False,
    ) -> Iterator[Answer]:
        """Yield one answer per query, in order. The table is searched for several queries at once.

        A list among the queries is one query of several examples. A query that is not an Item has its number as its id.
        An unusable query gets an answer with an `error`. Raises UsageError for k < 1 and for settings of no use.
        """
        positive(k, "k")
        least = least_cosine(distinct)
        stage = self.stage if rerank else None
        if stage is None and self.config.min_precision is not None:
            raise UsageError(
                "min_precision (--min-precision) needs a second look, which rerank=False (--no-rerank) turns off; "
                "leave one of them out."
            )
        self.table.follow()
        self.table.manifest.check(self.encoder.info, self.table.path)
        run = self._settings(k, where, least)
        depth, shown = max(k, self.shortlist, self.config.maxsim), stage is not None or self.middle is not None
        first_look = FirstLook(self.table, query_encoder(self.encoder), depth, where, least, self.hubness)
        read = (self._read(query, str(number), shown) for number, query in enumerate(queries, start=1))

        def answer(found: ShortlistResult) -> Answer:
            if isinstance(query := found.query, QueryError):
                return Answer(Item(query.query), [], [], k, {**run, "second_look": None}, found.stats, error=query)
            return self._answer(query, found, stage, k, run)

        at_once = 1 if stage is None else stage.reranker.together
        for batch in in_chunks(read, BATCH):
            for made, beside in in_order(answer, first_look.at(batch), at_once):
                made.stats.seconds = made.stats.share(beside)
                if stage is not None and made.error is None:  # settings hold counts, of all queries under way
                    made = replace(made, settings={**made.settings, **stage.settings()})
                yield made

    def _settings(self, k: int, where: Where | None, least: float | None) -> dict[str, Any]:
        """Return the settings of a search for its manifest; those that are unusual stand there only if they are set."""
        run = {**self._about(self.encoder.info), "items": len(self.table)}
        run |= {"k": k, "shortlist": self.shortlist, "where": where, **({"distinct": least} if least else {})}
        run |= {"tables": list(self.table.tables)} if isinstance(self.table, TableGroup) else {}
        return run if self.table.manifest.reading == NEWEST else {**run, "reading": self.table.manifest.reading}

    def _read(self, query: Any, name: str, shown: bool) -> Item | QueryError:
        try:
            asked = self.reader.read(query, name, shown)
        except QueryError as error:
            return error
        if isinstance(asked, Examples) and self.config.calibration is not None:
            why = "A calibration holds for queries of one item; leave out the examples, or the calibration."
            return QueryError(why, asked.id)
        return asked

    def _answer(
        self,
        query: Item,
        found: ShortlistResult,
        stage: SecondStage | None,
        k: int,
        run: Mapping[str, Any],
    ) -> Answer:
        shortlist, stats, describe = found.shortlist, found.stats, describe_from(self.table)
        stats.retrieved = len(shortlist)
        run = {**run, **settings_of(query), **self.hubness.settings()}
        order = None if self.middle is None else self.middle.reorder(query, shortlist, stats)
        looked = {} if self.middle is None else self.middle.settings()
        if stage is None:
            ranking = with_folded(fuse(order or shortlist, None, self.config.fusion, explain=True), found.folded)
            settings = {**run, "second_look": None, **looked}
            return Answer(query, shortlist, ranking, k, settings, stats, describe=describe, middle=order)
        reranked = stage.rerank(query, order or shortlist, k)
        stats.add(reranked.stats)
        settings, ranking = {**run, **looked}, with_folded(reranked.hits, found.folded)
        least_p = self.config.least_p
        return Answer(query, shortlist, ranking, k, settings, stats, least_p, describe=describe, middle=order)

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
    if codec not in (AUTO, IMAGES) and str(parse_codec(codec)) == first_pass:
        raise UsageError(f"Both passes of the cascade would use {first_pass}; name another codec (--codec).")
    return first_pass


def positive(value: int, name: str) -> int:
    """Return `value`. Raises UsageError if it is below 1."""
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}.")
    return value
