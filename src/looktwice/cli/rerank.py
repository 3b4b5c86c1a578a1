"""`looktwice rerank`: rerank shortlists from a run file."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli import tuned as tuning
from looktwice.cli.answers import Outputs
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import note, plural
from looktwice.cli.groups import grouped, names
from looktwice.cli.presets import record
from looktwice.cli.resume import kept_scores
from looktwice.cli.unused import refuse_middle, refuse_servers, refuse_tokens, refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.evaluate import Run
    from looktwice.sources.queries import Queries
    from looktwice.store import Table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("rerank", short_help="Rerank a shortlist from a run file.")(rerank)


@grouped
def rerank(
    ctx: typer.Context,
    candidates: Annotated[Path, typer.Argument(metavar="SHORTLIST", help="A TREC run, or JSON {query: {id: score}}.")],
    collection: Annotated[
        Path, typer.Argument(metavar="TABLE_OR_FOLDER", help="Table or folder that holds the images.")
    ],
    *,
    queries: options.QueryFile,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    rerank: options.Rerank,
    middle: options.Middle,
    ranking: options.Ranking,
    tuned: options.Tuned = None,
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    spread: Distribution,
    compute: options.Compute,
    urls: options.UrlOptions,
    output: options.Output,
) -> None:
    """Rerank a shortlist from another system, with the images of a table or a folder; this needs no encoder.

    Ids are the table's own, or paths relative to the folder. Scores other than cosines need --fusion rrf or p-only.
    With --run, an interrupted command continues when it is run again.

    Example: looktwice rerank bm25.trec photos --queries queries.jsonl --fusion rrf --run out.trec
    """
    from looktwice.evaluate import read_run
    from looktwice.search.distributed import RerankJob, portable
    from looktwice.search.rerank_run import rerank_run
    from looktwice.search.token_choice import CandidateLoader
    from looktwice.sources.queries import Queries

    table = _table(collection)
    _refuse_unused(ctx, table, middle.maxsim, tokens.codec)
    output.check()
    asked, shortlists = Queries(queries, urls.allowed), read_run(candidates)
    _match(shortlists, candidates, asked, queries)
    compute.set_threads()
    choice, prompt = tuning.read(tuned, ranking.fusion, rerank.prompt, candidates)
    how: dict[str, Any] = {"codec": tokens.codec, "missing": tokens.missing_tokens, "asymmetric": tokens.asymmetric}
    how["urls"] = urls.allowed
    folder = CandidateLoader.for_folder
    loader = folder(collection, urls.allowed) if table is None else CandidateLoader.for_table(table, **how)
    cluster = spread.for_queries(ctx, asked, collection, output.json)
    with kept_scores(score_cache, output.run) as cache:
        look = rerank.load(compute, cache=cache, prompt=prompt)
        look.expect(sum(min(shortlist, len(found)) for name, found in shortlists.items() if name in asked))
        rules: dict[str, Any] = {"shortlist": shortlist, "k": k, **middle.rules, **ranking.rules, **choice}
        if cluster is None:
            answers = rerank_run(shortlists, asked, loader, look, table=table, **rules)
        else:
            job = RerankJob(shortlists, portable(collection), table is None, look, how, rules)
            answers = job.on(cluster, asked, table)
        with closing(look):
            Outputs.of(output, loader.find, asked, record(rerank.preset)).write(answers)


def _refuse_unused(ctx: typer.Context, table: Table | None, maxsim: int | None, codec: str) -> None:
    """Raise UsageError for given options that this table, or a folder of images (None), has no use for."""
    from looktwice.search.middle_stage import kept_look

    refuse_servers(ctx)
    if table is None:
        refuse_unused(ctx, names(options.StoredTokens, options.Middle), "with a folder of images")
    else:
        refuse_middle(ctx, kept_look(table, None)[0] if maxsim is None else maxsim)
        refuse_tokens(ctx, table, codec)


def _match(shortlists: Run, candidates: Path, asked: Queries, queries: Path) -> None:
    """Skip queries without a shortlist, with a note. Raises UsageError if no query has one."""
    known = [name for name in shortlists if name in asked]
    if not known:
        raise UsageError(
            f"{candidates} and {queries} share no query id ({_some(shortlists)} against {_some(asked.ids)}); "
            "use the same ids in both."
        )
    _left_out(len(shortlists) - len(known), candidates, f"not in {queries}")
    _left_out(asked.keep(shortlists), queries, f"without a shortlist in {candidates}")


def _table(path: Path) -> Table | None:
    """Return the table at a path, or None for a folder of images."""
    from looktwice.store import Table, exists, locate

    return Table.open(path) if exists(path) and locate(path).exists("items.lance") else None


def _left_out(count: int, of: Path, why: str) -> None:
    if count:
        be = "is" if count == 1 else "are"
        note(f"Warning: {plural(count, 'query', 'queries')} of {of} {be} {why} and {be} skipped.")


def _some(names: Iterable[str]) -> str:
    first = list(islice(names, 2))
    return ", ".join(map(repr, first)) + ", …"
