"""`looktwice search`: search a table with an image, a text or both; one query, or a file of queries."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options, remote
from looktwice.cli import tuned as tuning
from looktwice.cli.answers import Outputs
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import note
from looktwice.cli.groups import grouped, names
from looktwice.cli.presets import note_drawings, record
from looktwice.cli.question import Question
from looktwice.cli.resume import kept_scores
from looktwice.cli.unused import refuse_looks, refuse_query, refuse_servers, refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.models.cluster import Cluster
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.search.retriever import Retriever


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("search", short_help="Search a table with an image, a text or both.")(search)


SECOND = {*names(options.Rerank, options.Stopping, options.StoredTokens)}
SECOND |= {"ties", "fusion", "shown", "score_cache", "examples"}
"""Parameters of `search` that only the second look uses."""
TOWER = {"mllm", "resolution", "max_tiles", "codec", "preset", "examples"}
"""Those of SECOND that a middle look uses too."""


@dataclass(frozen=True)
class SearchScope:
    """Scope: further tables, near-duplicates, hubs."""

    tables: Annotated[
        list[Path] | None,
        typer.Option("--table", metavar="TABLE", help="Another table of the same encoder to search, too. Repeatable."),
    ] = None
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Show near-duplicates once: the best of them, with the number of others.")
    ] = False
    min_cosine: options.MinCosine = 0.97
    hubness: Annotated[
        str,
        typer.Option(help="For text queries: bank (rank items lower that are near every text of a bank), or off."),
    ] = "off"

    def retriever(
        self, first: Path, look: MllmReranker | None, cluster: Cluster | None = None, **settings: Any
    ) -> Retriever:
        """Open all tables for searching, here or on a cluster."""
        from looktwice.search.retriever import Retriever

        tables, settings = [first, *(self.tables or ())], {**settings, "scorer": look, "hubness": self.hubness}
        if cluster is None:
            return Retriever(tables, **settings)
        from looktwice.search.distributed import SpreadRetriever

        return SpreadRetriever(cluster, tables, **settings)

    @property
    def folding(self) -> float | bool:
        """Return the cosine from which near-duplicates are folded, or False."""
        return self.min_cosine if self.distinct else False


def _refuse(encoder: str | None) -> None:
    if encoder is not None:
        raise UsageError(
            "search takes no --encoder: a table is searched by the encoder that filled it; leave the option out, or "
            f"index into a new table: looktwice index NEW.lt FOLDER --encoder {encoder}"
        )


TableOrServer = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="The table: a folder such as photos.lt, or s3://BUCKET/photos.lt; or the address of `looktwice serve`, "
        "http://HOST:PORT.",
    ),
]
NoEncoder = Annotated[str | None, typer.Option("--encoder", hidden=True, callback=_refuse)]


@grouped
def search(
    ctx: typer.Context,
    path: TableOrServer,
    *,
    question: Question,
    scope: SearchScope,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    where: options.Where = None,
    encoder: NoEncoder = None,
    no_rerank: options.NoRerank = False,
    rerank: options.Rerank,
    middle: options.Middle,
    ranking: options.Ranking,
    stopping: options.Stopping,
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    spread: Distribution,
    compute: options.Compute,
    urls: options.UrlOptions,
    output: options.Output,
) -> None:
    """Search a table: a shortlist by the table's encoder, then a second look by an MLLM.

    A bare QUERY that names a file is an image; any other QUERY is a text. A QUERY that looks like a path of a missing
    file is an error; pass --image or --text to choose.

    With --queries and --run an interrupted search continues when it is run again: scores are kept in RUN.scores until
    the run file is written, or in a --score-cache. With --maxsim, a middle look compares stored visual tokens first.

    Examples:

      looktwice search photos.lt query.jpg

      looktwice search photos.lt --image query.jpg --text "but at night" --where "year > 2020"

      looktwice search photos.lt query.jpg --like other.jpg --unlike scene-002.jpg

      looktwice search photos.lt --queries queries.jsonl --run out.trec --report out.html
    """
    _refuse_unused(ctx, no_rerank, bool(middle.maxsim), scope.distinct, remote.is_address(path))
    if remote.is_address(path):
        return remote.search(ctx, path, question, output)
    output.check()
    asked = question.file(urls.allowed)
    query = question.one() if asked is None else None
    cluster = spread.for_queries(ctx, asked, path, output.json)
    compute.set_threads()
    choice, prompt = tuning.read(stopping.tuned, ranking.fusion, rerank.prompt)
    with kept_scores(score_cache, output.run, asked is not None and not no_rerank) as cache:
        look = rerank.load(compute, cache=cache, prompt=prompt) if not no_rerank or middle.maxsim else None
        rules = {**middle.rules, **ranking.rules, **choice, **stopping.rules, **tokens.choice, **compute.placement}
        opened = scope.retriever(path, look, cluster, shortlist=shortlist, urls=urls.allowed, **rules)
        refuse_looks(ctx, opened)
        queries = [question.with_examples(query, opened, look is not None)] if asked is None else asked
        refuse_query(ctx, queries[0] if isinstance(queries, list) else None)
        _announce(opened, path, where, look, 0 if asked is None or no_rerank else len(asked))
        answers = opened.search_many(queries, k=k, where=where, rerank=not no_rerank, distinct=scope.folding)
        with nullcontext() if look is None else closing(look):
            Outputs.of(output, opened.loader.find, asked, record(rerank.preset), opened.middle).write(answers)


def _refuse_unused(ctx: typer.Context, no_rerank: bool, middle: bool, distinct: bool, there: bool) -> None:
    unused = () if not no_rerank else SECOND - TOWER if middle or there else SECOND  # a server may have a middle look
    refuse_unused(ctx, unused, "with --no-rerank")
    refuse_unused(ctx, () if distinct else ("min_cosine",), "without --distinct")
    if not there:  # else no option of servers can be sent
        refuse_servers(ctx)


def _announce(opened: Retriever, path: Path, where: Any, look: MllmReranker | None, queries: int) -> None:
    """Tell the reranker how many pairs a run asks; note what the bundled models know, and why no hit can come."""
    if look is not None and queries:
        look.expect(queries * min(opened.shortlist, len(opened.table)))
    note_drawings(None if look is None else str(look.mllm), opened.table.manifest.encoder.name)
    if len(opened.table) == 0:
        note(f"Table {opened.table.path} is empty; fill it with: looktwice index {opened.table.path} FOLDER")
    elif where is not None and (why := opened.table.why_empty(where)):
        note(why)
