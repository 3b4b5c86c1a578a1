"""Read queries in every form that callers may pass to a table: also ids of its items, and several examples at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from looktwice.errors import QueryError, UsageError, demand_list
from looktwice.search.examples import Examples, StoredItem
from looktwice.search.inputs import as_query, ends_like_image, looks_like_path
from looktwice.search.modalities import Direction
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import ImageLoader, LoadError
from looktwice.store import TableReader
from looktwice.types import Item, has_words


class QueryReader:
    """A reader of the queries of one table.

    A query is what `inputs` describes; `{"item": id}`, an item of the table; `{"item": id, "text": …}`, its image with
    another text; or a list of examples. In a list, a str that names neither a file nor an item is a text. With `shown`
    the second look needs each example's image.
    """

    def __init__(self, table: TableReader, loader: CandidateLoader, direction: Direction) -> None:
        self._table, self._loader, self._direction = table, loader, direction
        self._images = ImageLoader(cache_bytes=0)

    def read(self, value: Any, name: str, shown: bool = True) -> Item:
        """Return one query. Raises QueryError if it cannot be used."""
        if isinstance(value, list | tuple):
            return self.together(value, (), name, shown=shown)
        if isinstance(value, Mapping) and "item" in value:
            return self._direction.query(self._named(value, name, shown))
        item = as_query(value, name)
        return item.each(self._direction.query) if isinstance(item, Examples) else self._direction.query(item)

    def together(
        self, like: Sequence[Any], unlike: Sequence[Any], name: str, rule: str = "mean", shown: bool = True
    ) -> Item:
        """Return the query of several examples. Raises QueryError if one cannot be used, or none is positive."""
        if not like:
            raise QueryError("The query has no positive example; give a query, or at least one in like.", name)
        positive = [self._example(value, f"{name}, example {n}", shown) for n, value in enumerate(like, 1)]
        negative = [self._example(value, f"{name}, unlike {n}", False) for n, value in enumerate(unlike, 1)]
        return Examples.of(positive, negative, name, rule).each(self._direction.query)

    def _example(self, value: Any, name: str, shown: bool) -> Item:
        if isinstance(value, Mapping) and "item" in value:
            return self._named(value, name, shown)
        if isinstance(value, str) and not (ends_like_image(value) and Path(value).is_file()):
            if self._table.lookup([value], ["id"]):
                return self._stored(value, shown)
            if looks_like_path(value):
                raise QueryError(
                    f"{name}: {value!r} is neither a file nor an item of {self._table.path}; check the name, or pass "
                    '{"text": …} for a text.',
                    name,
                )
        return as_query(value, name)

    def _named(self, value: Mapping[str, Any], name: str, shown: bool) -> Item:
        given, text = value["item"], value.get("text", "")
        if not value.keys() <= {"item", "text"} or not isinstance(given, str) or not isinstance(text, str):
            raise QueryError(
                f'{name}: write {{"item": id}} with an id of the table, and "text" beside it or not.', name
            )
        if not self._table.lookup([given], ["id"]):
            raise QueryError(f"{name}: {self._table.path} has no item {given!r}; check the id.", name)
        if not has_words(text):
            return self._stored(given, shown)
        said = as_query({"text": text}, name).text
        return replace(self._stored(given, True), text=said, vector=None)  # both together have a vector of their own

    def _stored(self, id_: str, shown: bool) -> StoredItem:
        """Return an item of the table, with its image as far as it can be read."""
        row = self._table.get([id_])[0]
        found = self._loader.find([id_])[0]
        item = next(self._images.load([found]))[0]
        if isinstance(item, LoadError):
            if shown:
                raise QueryError(
                    f"Example {id_!r} cannot be read ({item.why}); leave it out, or search without the second look.",
                    id_,
                )
            if self._direction.demands_image:
                raise QueryError(
                    f"Example {id_!r} cannot be read ({item.why}), but the direction {self._direction} needs its "
                    "image; leave it out, or use --direction auto.",
                    id_,
                )
            item = Item(id_, text=row.text, uri=getattr(found, "uri", None))  # it has an image, which its vector knows
        own = {key: getattr(item, key) for key in ("image", "text", "uri", "sha256", "tokens")}
        return StoredItem(id_, **own, vector=row.vector)


def read_call(
    reader: QueryReader, query: Any, like: Sequence[Any], unlike: Sequence[Any], rule: str, shown: bool
) -> Item:
    """Return the query that `Retriever.search` was called with. Raises QueryError, and UsageError without a query."""
    for given, what in ((like, "The examples in like"), (unlike, "The examples in unlike")):
        demand_list(given, what)
    if not like and not unlike and rule == "mean" and query is not None:
        return reader.read(query, "query", shown)
    first = [] if query is None else list(query) if isinstance(query, list | tuple) else [query]
    if not first and not like:
        raise UsageError("The query is missing; pass a query, or examples in like.")
    if first and not isinstance(query, list | tuple):
        first = [reader.read(query, "query", shown)]  # a query by itself is never the id of an item
    return reader.together([*first, *like], unlike, "query", rule, shown)
