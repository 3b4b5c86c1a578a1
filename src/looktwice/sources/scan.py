"""Hold what a scan will read, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from looktwice.sources.bucket_walk import BucketWalk
from looktwice.sources.folders import Walk
from looktwice.sources.records import Scope, Source, Unreadable


@dataclass(slots=True)
class Scan:
    """The items below the given paths; iterate it as often as needed.

    `roots` holds the uris of the given paths (folders with a closing slash), for the manifest. `scopes` says which
    items of a table this scan accounts for. After iterating, `ignored` counts files of other kinds in folders, by
    suffix. `empty` lists the folders without any entry, such as the mount point of a disk that is not mounted. A scan
    with a `limit` ends after so many items.
    """

    roots: tuple[str, ...]
    scopes: tuple[Scope, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[Scope] = field(default_factory=list)
    limit: int | None = None
    parts: list[Iterable[Source | Unreadable]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Source | Unreadable]:
        return islice(self._all(), self.limit)

    def _all(self) -> Iterator[Source | Unreadable]:
        self.ignored, self.empty = Counter(), []
        for part in self.parts:
            yield from part
            if isinstance(part, Walk | BucketWalk):
                self.ignored += part.ignored
                self.empty += part.empty
