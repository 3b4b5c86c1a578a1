"""`looktwice search`: search a table with an image, a text or both; one query, or a file of queries."""

from __future__ import annotations

import shlex
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.answers import Outputs, check_outputs
from looktwice.cli.console import note
from looktwice.cli.groups import grouped, names
from looktwice.cli.resume import kept_scores
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.sources import Urls
    from looktwice.sources.queries import Queries
    from looktwice.types import Item


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("search", short_help="Search a table with an image, a text or both.")(search)


SECOND = {*names(options.Rerank, options.Stopping, options.StoredTokens), "ties", "fusion", "score_cache"}
"""Parameters of `search` that only the second look uses."""
TOWER = {"mllm", "resolution", "max_tiles", "codec"}
"""Those of SECOND that a middle look uses too."""


@dataclass(frozen=True)
class Question:
    """One query, or a file of queries."""

    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="An image file, or text.")] = None
    image: Annotated[Path | None, typer.Option(help="The query's image.")] = None
    text: Annotated[str | None, typer.Option(help="The query's text; with --image, both together.")] = None
    queries: Annotated[
        Path | None,
        typer.Option(help='Many queries: JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
    ] = None

    def file(self, urls: Urls) -> Queries | None:
        """Return the file of queries, or None. Raises UsageError if a single query is given too."""
        from looktwice.sources.queries import Queries

        if self.queries is not None and (self.query, self.image, self.text) != (None, None, None):
            raise UsageError("A single query and --queries exclude each other; give only one of them.")
        return None if self.queries is None else Queries(self.queries, urls)

    def one(self) -> Item:
        """Return the query. Raises UsageError if it is missing, given twice or unreadable."""
        return _single(self.query, self.image, self.text)


@grouped
def search(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    question: Question,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    where: options.Where = None,
    no_rerank: options.NoRerank = False,
    rerank: options.Rerank,
    middle: options.Middle,
    ranking: options.Ranking,
    stopping: options.Stopping,
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    compute: options.Compute,
    urls: options.UrlOptions,
    output: options.Output,
) -> None:
    """Search a table: a shortlist by the table's encoder, then a second look by an MLLM.

    With --maxsim, a middle look between them compares stored visual tokens one by one (see `looktwice add-tokens`).

    A bare QUERY that names a file is an image; any other QUERY is a text. A QUERY that looks like a path of a missing
    file is an error; pass --image or --text to choose.

    With --queries and --run an interrupted search continues when it is run again. Its scores are kept in RUN.scores
    until the run file is written, or permanently in a --score-cache.

    Examples:

      looktwice search photos.lt query.jpg

      looktwice search photos.lt "a red bicycle" -k 5

      looktwice search photos.lt --image query.jpg --text "but at night" --where "year > 2020"

      looktwice search photos.lt --queries queries.jsonl --run out.trec --report out.html
    """
    from looktwice.search.retriever import Retriever

    if no_rerank:
        options.refuse_unused(ctx, SECOND - TOWER if middle.maxsim else SECOND, "with --no-rerank")
    check_outputs(output.run, output.report)
    asked = question.file(urls.allowed)
    queries = [question.one()] if asked is None else asked
    compute.set_threads()
    many = asked is not None and not no_rerank
    with kept_scores(score_cache, output.run if many else None, many) as cache:
        look = None if no_rerank and not middle.maxsim else rerank.load(compute, cache=cache)
        rules = {**middle.rules, **ranking.rules, **stopping.rules, **tokens.choice}
        opened = Retriever(path, scorer=look, shortlist=shortlist, urls=urls.allowed, **rules, **compute.placement)
        if len(opened.table) == 0:
            note(f"Table {path} is empty; fill it with: looktwice index {path} FOLDER")
        answers = opened.search_many(queries, k=k, where=where, rerank=not no_rerank)
        with nullcontext() if look is None else closing(look):
            Outputs.of(output, opened.loader.find, asked).write(answers)


def _single(query: str | None, image: Path | None, text: str | None) -> Item:
    from looktwice.search.inputs import picture, words
    from looktwice.types import Item

    if query is not None and (image is not None or text is not None):
        raise UsageError("QUERY excludes --image and --text; give only one of them.")
    if query is not None:
        return _bare(query)
    if text is not None and not text.strip():
        raise UsageError("--text is empty; give a text.")
    if text is not None:
        words(text, "The query")
    if image is not None:
        return picture(image, str(image), text)
    if text is None:
        raise UsageError("The query is missing; give an image file, a text, or --queries FILE.")
    return Item(text, text=text)


def _bare(query: str) -> Item:
    """Read a bare query: an image if it names a file, else a text. Raises UsageError for the path of no file."""
    from looktwice.search.inputs import looks_like_path, picture, words
    from looktwice.types import Item

    if not query.strip():
        raise UsageError("The query is empty; give an image file or a text.")
    path = Path(query)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long for a file name, or with a NUL in it: a text
        there = folder = False
    if folder:
        raise UsageError(f"{query!r} is a folder; name an image in it, or pass --text {shlex.quote(query)}.")
    if there:
        return picture(path, query)
    if looks_like_path(query):
        raise UsageError(f"File {query!r} does not exist; check the path, or pass --text {shlex.quote(query)}.")
    return Item(query, text=words(query, "The query"))
