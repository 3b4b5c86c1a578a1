"""Read a file of queries: `.jsonl`, one {"id", "image", "text"} per line, loaded one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from looktwice.errors import MediaError, UsageError
from looktwice.sources import Source, Unreadable, Urls, file_uri, images, read_uri, scan
from looktwice.sources.reading import NEWEST, Reading
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image


class Queries:
    """The queries of a file, in order. Iterating loads them; an unreadable query is skipped and kept in `broken`.

    A line that is not a query is kept there too, under "line N". `urls` says which of its URLs may be fetched. Raises
    UsageError for a file that is missing or has no query, and for a repeated id.
    """

    def __init__(self, path: str | Path, urls: Urls = "refused") -> None:
        if Path(path).suffix.lower() != ".jsonl":
            raise UsageError(f'{path} is not a .jsonl file; pass one with one {{"id", "image", "text"}} per line.')
        self._lines: dict[str, MediaError] = {}  # those that are not queries
        self._sources: dict[str, Source] = {}
        for number, found in enumerate(scan([path], urls=urls), start=1):
            if isinstance(found, Unreadable):
                self._not_a_query(found, path)
                continue
            if self._sources.setdefault(found.id, found) is not found:
                raise UsageError(f"{path}, entry {number}: the id {found.id!r} occurs twice; ids must be unique.")
        self.broken = dict(self._lines)
        if not self._sources and self._lines:
            name, error = next(iter(self._lines.items()))
            raise UsageError(f"{path} is not a usable query file: {name}: {error.detail} ({error.reason}).")
        if not self._sources:
            raise UsageError(f'{path} has no queries; add one {{"id", "image", "text"}} per line.')

    def _not_a_query(self, found: Unreadable, path: str | Path) -> None:
        line, _, detail = found.detail.partition(": ")
        if found.uri == found.root:  # the whole file, not a line of it
            raise UsageError(f"{path} is not a usable query file: {found.detail} ({found.reason}).")
        self._lines[line] = MediaError(found.reason, detail)

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def bad_lines(self) -> dict[str, MediaError]:
        """Return the lines that are not queries, as "line N"."""
        return dict(self._lines)

    @property
    def ids(self) -> list[str]:
        """Return all ids, in the order of the file."""
        return list(self._sources)

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[Item]:
        return self._load(self._sources.values())

    def keep(self, names: Container[str]) -> int:
        """Drop the queries of all other names, so that they are never loaded. Return how many were dropped."""
        before = len(self._sources)
        self._sources = {name: source for name, source in self._sources.items() if name in names}
        return before - len(self._sources)

    def kinds_first(self, names: Container[str]) -> Iterator[Item]:
        """Yield the queries of these names, one of each kind (image, text, both) before all others."""
        chosen = [source for source in self._sources.values() if source.id in names]
        first = {(source.has_image, bool(source.text)): source for source in reversed(chosen)}
        begun = {source.id for source in first.values()}
        return self._load([*first.values(), *(source for source in chosen if source.id not in begun)])

    def _load(self, sources: Iterable[Source]) -> Iterator[Item]:
        self.broken = dict(self._lines)
        for source in sources:
            try:
                yield load_query(source)
            except MediaError as error:
                self.broken[source.id] = error


def load_query(source: Source) -> Item:
    """Read one query. Raises MediaError for an unreadable image."""
    data = source.read()
    if not source.has_image:
        return Item(source.id, text=source.text)
    image, _ = images.load(data)
    return Item(source.id, image, source.text, source.metadata, source.uri, hashlib.sha256(data).hexdigest())


def read_alike(query: Item, reading: Reading) -> Item:
    """Return a query whose image was read as the items of a table were: from its file, else reduced in memory.

    The second look gets the query itself, with its whole image.
    """
    image = query.image
    if image is None or (reading.version == NEWEST and reading.factor(image.size) == 1):
        return query
    return replace(query, image=_read_again(query, reading) or images.reduced(image, reading))


def _read_again(query: Item, reading: Reading) -> Image | None:
    if query.uri is None or query.sha256 is None:
        return None
    uri = query.uri if "://" in query.uri else file_uri(query.uri)
    try:
        return images.load(read_uri(uri, sha256=query.sha256), reading)[0]
    except MediaError:  # a pipe, a URL, a file that is gone
        return None
