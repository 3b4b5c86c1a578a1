"""Hold what a scan will read, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from looktwice.sources.bucket_walk import BucketWalk
from looktwice.sources.folders import Walk
from looktwice.sources.records import Scope, Source, Unreadable

_BATCH = 1024
"""Items that are filtered at once."""


@dataclass(slots=True)
class Scan:
    """The items below the given paths; iterate it as often as needed.

    `roots` holds the uris of the given paths (folders with a closing slash), for the manifest. `scopes` says which
    items of a table this scan accounts for. After iterating, `ignored` counts files of other kinds in folders, by
    suffix. `empty` lists the folders without any entry, such as the mount point of a disk that is not mounted. A scan
    with a `limit` ends after so many items. `passing` returns the places of the items that are kept; `left_out` counts
    the others.
    """

    roots: tuple[str, ...]
    scopes: tuple[Scope, ...]
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[Scope] = field(default_factory=list)
    limit: int | None = None
    parts: list[Iterable[Source | Unreadable]] = field(default_factory=list)
    passing: Callable[[Sequence[Source]], set[int]] | None = None
    left_out: int = 0

    def __iter__(self) -> Iterator[Source | Unreadable]:
        return islice(self._all() if self.passing is None else self._filtered(self.passing), self.limit)

    def _filtered(self, passing: Callable[[Sequence[Source]], set[int]]) -> Iterator[Source | Unreadable]:
        self.left_out, met = 0, self._all()
        while batch := list(islice(met, _BATCH)):
            items = [one for one in batch if isinstance(one, Source)]
            kept = {id(items[place]) for place in passing(items)}
            self.left_out += len(items) - len(kept)
            yield from (one for one in batch if isinstance(one, Unreadable) or id(one) in kept)

    def _all(self) -> Iterator[Source | Unreadable]:
        self.ignored, self.empty = Counter(), []
        for part in self.parts:
            yield from part
            if isinstance(part, Walk | BucketWalk):
                self.ignored += part.ignored
                self.empty += part.empty
