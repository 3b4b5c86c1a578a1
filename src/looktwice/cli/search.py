"""`looktwice search`: ask a table with a picture, words or both; one query, or a file of them."""

from __future__ import annotations

import shlex
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import Outputs, check_outputs
from looktwice.cli.console import note
from looktwice.cli.resume import kept_scores
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.types import Item


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("search", short_help="Ask a table with a picture, words or both.")(search)


SECOND = frozenset(
    {
        "mllm",
        "prompt",
        "score_mode",
        "retrace",
        "prior",
        "as_released",
        "ties",
        "budget",
        "calibration",
        "sure",
        "fusion",
        "batch_size",
        "resolution",
        "max_tiles",
        "codec",
        "missing_tokens",
        "asymmetric",
        "score_cache",
    }
)
"""What only a second look reads, as parameters of `search`."""


def search(
    ctx: typer.Context,
    path: options.TablePath,
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="A picture file, or words.")] = None,
    image: Annotated[Path | None, typer.Option(help="The query's picture.")] = None,
    text: Annotated[str | None, typer.Option(help="The query's words; with --image, both together.")] = None,
    queries: options.Queries = None,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    where: options.Where = None,
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    score_mode: options.ScoreMode = "p-label",
    retrace: options.Retrace = "off",
    prior: options.Prior = "off",
    as_released: options.AsReleased = False,
    ties: options.Ties = "default",
    direction: options.Direction = "auto",
    budget: options.Budget = "all",
    calibration: options.Calibration = None,
    sure: options.Sure = None,
    explain: options.Explain = False,
    fusion: options.FusionRule = "0.5",
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="The shortlist only, no second look.")] = False,
    run: options.RunFile = None,
    report: options.ReportFile = None,
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
    """Search a table: a shortlist by the table's encoder, then a second look by an MLLM.

    A bare QUERY is a picture where it names a file, and words otherwise; what looks like a path but names no file is an
    error. --image and --text say which.

    With --queries and --run an interrupted search goes on where it stopped when it is run again: until the run file is
    written, its scores are kept beside it as RUN.scores, or for good in a --score-cache.

    Examples:

      looktwice search photos.lt query.jpg

      looktwice search photos.lt "a red bicycle" -k 5

      looktwice search photos.lt --image query.jpg --text "but at night" --where "year > 2020"

      looktwice search photos.lt --queries queries.jsonl --run out.trec --report out.html
    """
    from looktwice.models.device import set_threads
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries

    if queries is not None and (query, image, text) != (None, None, None):
        raise UsageError("Give one query, or a file of them with --queries; not both.")
    if no_rerank:
        options.refuse_unused(ctx, SECOND, "with --no-rerank")
    check_outputs(run, report)
    urls = options.urls(allow_urls, allow_private_urls)
    asked = Queries(queries, urls) if queries is not None else None
    single = [] if asked is not None else [_single(query, image, text)]
    set_threads(threads)
    limits = {"batch_size": batch_size, "resolution": resolution, "max_tiles": max_tiles}
    method = {"score_mode": score_mode, "retrace": retrace, "prior": prior, "as_released": as_released}
    looks = asked is not None and not no_rerank
    with kept_scores(score_cache, run if looks else None, looks) as cache:
        models: dict[str, Any] = {"cache": cache, "device": device, "dtype": dtype, **limits, **method}
        look = None if no_rerank else MllmReranker(mllm, prompt=prompt, **models)
        retriever = Retriever(
            path,
            scorer=look,
            fusion=fusion,
            ties=ties,
            direction=direction,
            budget=budget,
            calibration=calibration,
            sure=sure,
            shortlist=shortlist,
            codec=codec,
            missing_tokens=missing_tokens,
            asymmetric=asymmetric,
            urls=urls,
            device=device,
            dtype=dtype,
        )
        if len(retriever.table) == 0:
            note(f"The table {path} is empty; fill it with: looktwice index {path} FOLDER")
        answers = retriever.search_many(single if asked is None else asked, k=k, where=where)
        with nullcontext() if look is None else closing(look):
            Outputs(json, run, report, retriever.loader.find, asked, explain).write(answers)


def _single(query: str | None, image: Path | None, text: str | None) -> Item:
    from looktwice.search.inputs import picture, words
    from looktwice.types import Item

    if query is not None and (image is not None or text is not None):
        raise UsageError("Give the query either bare or with --image and --text, not both.")
    if query is not None:
        return _bare(query)
    if text is not None and not text.strip():
        raise UsageError("The query's text is empty; give words.")
    if text is not None:
        words(text, "The query")
    if image is not None:
        return picture(image, str(image), text)
    if text is None:
        raise UsageError("What to search for? Give a picture file, words, or --queries FILE.")
    return Item(text, text=text)


def _bare(query: str) -> Item:
    """A picture where the word names a file, else words; never words where it was meant as a path."""
    from looktwice.search.inputs import looks_like_path, picture, words
    from looktwice.types import Item

    if not query.strip():
        raise UsageError("The query is empty; give a picture file or words.")
    path = Path(query)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long for a file name, or with a NUL in it: words
        there = folder = False
    if folder:
        raise UsageError(f"{query!r} is a folder; name a picture in it, or say --text {shlex.quote(query)} for words.")
    if there:
        return picture(path, query)
    if looks_like_path(query):
        raise UsageError(f"There is no file {query!r}; check the path, or say --text {shlex.quote(query)} for words.")
    return Item(query, text=words(query, "The query"))
