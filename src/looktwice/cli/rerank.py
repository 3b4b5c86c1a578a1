"""`looktwice rerank`: the second look at somebody else's shortlists."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.answers import Outputs, check_outputs
from looktwice.cli.console import note, plural
from looktwice.cli.resume import kept_scores
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.store import Table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("rerank", short_help="Re-rank somebody else's shortlist.")(rerank)


OF_TABLES = frozenset({"codec", "missing_tokens", "asymmetric"})


def rerank(
    ctx: typer.Context,
    candidates: Annotated[Path, typer.Argument(metavar="SHORTLIST", help="A TREC run, or JSON {query: {id: score}}.")],
    collection: Annotated[Path, typer.Argument(metavar="TABLE_OR_FOLDER", help="Where the ids' pictures are.")],
    queries: Annotated[Path, typer.Option(help='JSON Lines of {"id", "image", "text"}; paths relative to the file.')],
    run: options.RunFile = None,
    report: options.ReportFile = None,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    score_mode: options.ScoreMode = "p-label",
    retrace: options.Retrace = "off",
    prior: options.Prior = "off",
    as_released: options.AsReleased = False,
    ties: options.Ties = "default",
    direction: options.Direction = "auto",
    explain: options.Explain = False,
    fusion: options.FusionRule = "0.5",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    batch_size: options.BatchSize = None,
    resolution: options.Resolution = None,
    max_tiles: options.MaxTiles = None,
    codec: options.Codec = "auto",
    missing_tokens: options.MissingTokens = "error",
    asymmetric: options.Asymmetric = False,
    score_cache: options.ScoreCache = None,
    allow_urls: options.AllowUrls = False,
    allow_private_urls: options.AllowPrivateUrls = False,
    json: options.Json = False,
) -> None:
    """Re-rank a shortlist made elsewhere, against a table or a folder of pictures; no encoder is needed.

    Ids are those of the table, or what indexing the folder would give: paths relative to it. Scores that are no cosines
    need --fusion rrf or p-only. With --run, an interrupted command goes on where it stopped when it is run again.

    Example: looktwice rerank bm25.trec pictures --queries queries.jsonl --fusion rrf --run out.trec
    """
    from looktwice.evaluate import read_run
    from looktwice.models.device import set_threads
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.search.rerank_run import rerank_run
    from looktwice.search.token_choice import CandidateLoader
    from looktwice.sources.queries import Queries

    table = _table(collection)
    if table is None:
        options.refuse_unused(ctx, OF_TABLES, "with a folder of pictures")
    check_outputs(run, report)
    urls = options.urls(allow_urls, allow_private_urls)
    asked = Queries(queries, urls)
    shortlists = read_run(candidates)
    known = [name for name in shortlists if name in asked]
    if not known:
        raise UsageError(
            f"{candidates} and {queries} have no query id in common ({_some(shortlists)} against {_some(asked.ids)})."
        )
    _left_out(len(shortlists) - len(known), candidates, f"not in {queries}")
    _left_out(asked.keep(shortlists), queries, f"without a shortlist in {candidates}")
    set_threads(threads)
    budget = {"batch_size": batch_size, "resolution": resolution, "max_tiles": max_tiles}
    method = {"score_mode": score_mode, "retrace": retrace, "prior": prior, "as_released": as_released}
    if table is None:
        loader = CandidateLoader.for_folder(collection, urls)
    else:
        loader = CandidateLoader.for_table(table, urls, codec=codec, missing=missing_tokens, asymmetric=asymmetric)
    rules = {"fusion": fusion, "ties": ties, "direction": direction}
    with kept_scores(score_cache, run) as cache:
        look = MllmReranker(mllm, prompt=prompt, cache=cache, device=device, dtype=dtype, **budget, **method)
        answers = rerank_run(shortlists, asked, loader, look, shortlist=shortlist, k=k, **rules)
        with closing(look):
            Outputs(json, run, report, loader.find, asked, explain).write(answers)


def _table(path: Path) -> Table | None:
    """The table at a path; None for a folder of pictures."""
    from looktwice.store import Table

    return Table.open(path) if (path / "manifest.json").exists() and (path / "items.lance").exists() else None


def _left_out(count: int, of: Path, why: str) -> None:
    if count:
        be = "is" if count == 1 else "are"
        note(f"Warning: {plural(count, 'query', 'queries')} of {of} {be} {why} and {be} left out.")


def _some(names: Iterable[str]) -> str:
    first = list(islice(names, 2))
    return ", ".join(map(repr, first)) + ", …"
