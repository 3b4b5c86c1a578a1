"""The query of `looktwice search`: an image, a text or both; with examples; or a file of queries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.bare import bare_kind
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.search.retriever import Retriever
    from looktwice.sources import Urls
    from looktwice.sources.queries import Queries
    from looktwice.types import Item


@dataclass(frozen=True)
class Question:
    """Query, or a file of queries."""

    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="An image file, or text.")] = None
    image: Annotated[Path | None, typer.Option(help="The query's image.")] = None
    text: Annotated[str | None, typer.Option(help="The query's text; with --image, both together.")] = None
    queries: Annotated[
        Path | None,
        typer.Option(help='Many queries: JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
    ] = None

    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXAMPLE",
            help="A further example of what to find: an image file, the id of an item, or a text. Repeatable.",
        ),
    ] = None
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXAMPLE", help="An example of what not to find, as for --like; only the first look uses it."
        ),
    ] = None
    examples: Annotated[
        str,
        typer.Option(help="With several examples: rank by the max or the mean of the second look's scores."),
    ] = "mean"

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


def _single(query: str | None, image: Path | None, text: str | None) -> Item:
    from looktwice.search.inputs import checked_text, read_image
    from looktwice.types import Item

    if query is not None and (image is not None or text is not None):
        raise UsageError("QUERY excludes --image and --text; give only one of them.")
    if query is not None:
        return _bare(query)
    if text is not None and not text.strip():
        raise UsageError("--text is empty; give a text.")
    if text is not None:
        checked_text(text, "The query")
    if image is not None:
        return read_image(image, str(image), text)
    if text is None:
        raise UsageError("The query is missing; give an image file, a text, or --queries FILE.")
    return Item(text, text=text)


def _bare(query: str) -> Item:
    """Read a bare query: an image if it names a file, else a text. Raises UsageError for the path of no file."""
    from looktwice.search.inputs import checked_text, read_image
    from looktwice.types import Item

    if bare_kind(query) == "image":
        return read_image(Path(query), query)
    return Item(query, text=checked_text(query, "The query"))


def _example(name: str) -> Any:
    """Read an example: an image if it names a file; else the table decides, and a text is not a mistyped path."""
    from looktwice.search.inputs import read_image

    return read_image(Path(name), name) if is_file(name) else name


def is_file(name: str) -> bool:
    """Return whether an example names a file."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a file name, or with a NUL in it
        return False
