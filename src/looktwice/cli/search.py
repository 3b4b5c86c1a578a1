"""`looktwice search`: search a table with an image, a text or both; one query, or a file of queries."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options, remote
from looktwice.cli.answers import Outputs
from looktwice.cli.bare import bare_kind
from looktwice.cli.console import note
from looktwice.cli.groups import grouped, names
from looktwice.cli.presets import note_drawings, record
from looktwice.cli.resume import kept_scores
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.search.retriever import Retriever
    from looktwice.sources import Urls
    from looktwice.sources.queries import Queries
    from looktwice.types import Item


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("search", short_help="Search a table with an image, a text or both.")(search)


SECOND = {*names(options.Rerank, options.Stopping, options.StoredTokens), "ties", "fusion", "score_cache", "examples"}
"""Parameters of `search` that only the second look uses."""


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

    like: Annotated[
        list[str] | None,
        typer.Option(
            help="A further example of what to find: an image file, the id of an item, or a text; repeatable."
        ),
    ] = None
    unlike: Annotated[
        list[str] | None,
        typer.Option(help="An example of what not to find, as for --like; repeatable. Only the first look uses it."),
    ] = None
    examples: Annotated[
        str,
        typer.Option(help="How the second look joins the scores of several examples: max or mean."),
    ] = "max"

    def file(self, urls: Urls) -> Queries | None:
        """Return the file of queries, or None. Raises UsageError if a single query is given too."""
        from looktwice.sources.queries import Queries

        single = [self.query, self.image, self.text, *(self.like or ()), *(self.unlike or ())]
        if self.queries is not None and any(given is not None for given in single):
            raise UsageError("A single query and --queries exclude each other; give only one of them.")
        return None if self.queries is None else Queries(self.queries, urls)

    def one(self) -> Item | None:
        """Return the query, None if there are examples only. Raises UsageError if it is missing or unreadable."""
        if self.like and (self.query, self.image, self.text) == (None, None, None):
            return None
        return _single(self.query, self.image, self.text)

    def with_examples(self, query: Item | None, opened: Retriever, shown: bool) -> Item:
        """Return the query with its examples. Raises UsageError for one that is neither a file nor an item."""
        from looktwice.search.query_reader import read_call

        like, unlike = ([_example(name) for name in names or ()] for names in (self.like, self.unlike))
        asked = read_call(opened.reader, query, like, unlike, self.examples, shown)
        signed = [
            *([query.id] if query is not None else []),
            *(self.like or ()),
            *(f"not {u}" for u in self.unlike or ()),
        ]
        return replace(asked, id=" + ".join(signed)) if like or unlike else asked


def _refuse(encoder: str | None) -> None:
    if encoder is not None:
        raise UsageError(
            "search takes no --encoder: a table is searched by the encoder that filled it; leave the option out, or "
            f"index into a new table: looktwice index NEW.lt FOLDER --encoder {encoder}"
        )


NoEncoder = Annotated[str | None, typer.Option("--encoder", hidden=True, callback=_refuse)]


@grouped
def search(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    question: Question,
    k: options.K = 10,
    shortlist: options.Shortlist = 100,
    where: options.Where = None,
    encoder: NoEncoder = None,
    no_rerank: options.NoRerank = False,
    rerank: options.Rerank,
    ranking: options.Ranking,
    stopping: options.Stopping,
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    compute: options.Compute,
    urls: options.UrlOptions,
    output: options.Output,
) -> None:
    """Search a table: a shortlist by the table's encoder, then a second look by an MLLM.

    A bare QUERY that names a file is an image; any other QUERY is a text. A QUERY that looks like a path of a missing
    file is an error; pass --image or --text to choose.

    With --queries and --run an interrupted search continues when it is run again. Its scores are kept in RUN.scores
    until the run file is written, or permanently in a --score-cache.

    Examples:

      looktwice search photos.lt query.jpg

      looktwice search photos.lt "a red bicycle" -k 5

      looktwice search photos.lt --image query.jpg --text "but at night" --where "year > 2020"

      looktwice search photos.lt query.jpg --like other.jpg --unlike scene-002.jpg

      looktwice search photos.lt --queries queries.jsonl --run out.trec --report out.html
    """
    if no_rerank:
        options.refuse_unused(ctx, SECOND, "with --no-rerank")
    if remote.is_address(path):
        return remote.search(ctx, path, question, output)
    from looktwice.search.retriever import Retriever

    output.check()
    asked = question.file(urls.allowed)
    query = question.one() if asked is None else None
    compute.set_threads()
    many = asked is not None and not no_rerank
    with kept_scores(score_cache, output.run if many else None, many) as cache:
        look = None if no_rerank else rerank.load(compute, cache=cache)
        rules = {**ranking.rules, **stopping.rules, **tokens.choice}
        opened = Retriever(path, scorer=look, shortlist=shortlist, urls=urls.allowed, **rules, **compute.placement)
        _note_empty(opened, path, where)
        queries = [question.with_examples(query, opened, look is not None)] if asked is None else asked
        note_drawings([opened.table.manifest.encoder.name, *([] if no_rerank else [rerank.mllm])])
        answers = opened.search_many(queries, k=k, where=where)
        with nullcontext() if look is None else closing(look):
            Outputs.of(output, opened.loader.find, asked, record(rerank.preset)).write(answers)


def _note_empty(opened: Retriever, path: Path, where: Any) -> None:
    """Say why no answer will have a hit."""
    if len(opened.table) == 0:
        note(f"Table {path} is empty; fill it with: looktwice index {path} FOLDER")
    elif where is not None and (why := opened.table.why_empty(where)):
        note(why)


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
    from looktwice.search.inputs import picture, words
    from looktwice.types import Item

    if bare_kind(query) == "image":
        return picture(Path(query), query)
    return Item(query, text=words(query, "The query"))


def _example(name: str) -> Any:
    """Read an example: an image if it names a file; else the table decides, and a text is not a mistyped path."""
    from looktwice.search.inputs import picture

    return picture(Path(name), name) if _is_file(name) else name


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a file name, or with a NUL in it
        return False
