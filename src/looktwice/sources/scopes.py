"""Find the items of a table that a scan should have met."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable

from looktwice.sources.records import Scope


class Scopes:
    """A search structure that finds the scope of an item, among any number of scopes."""

    def __init__(self, scopes: Iterable[Scope]) -> None:
        self._prefixes: dict[str, list[str]] = defaultdict(list)
        for scope in sorted(scopes, key=lambda scope: (scope.root, scope.prefix)):
            known = self._prefixes[scope.root]
            # In sorted order an inner scope follows its outer one. Without inner ones, only the last scope before a
            # uri can cover it, so `find` needs one bisection.
            if not known or not scope.prefix.startswith(known[-1]):
                known.append(scope.prefix)

    def find(self, root: str, uri: str) -> Scope | None:
        """Return the outermost scope that covers an item, or None."""
        prefixes = self._prefixes.get(root, [])
        place = bisect.bisect_right(prefixes, uri) - 1
        return Scope(root, prefixes[place]) if place >= 0 and uri.startswith(prefixes[place]) else None

    def accounts_for(self, root: str, uri: str) -> bool:
        """Return whether the scan covers `uri`, as an item or as an archive of its own."""
        return self.find(root, uri) is not None or self.find(root, f"{uri}#") is not None


class HiddenPlaces:
    """Places that a scan could not read, so that none of their items may be pruned."""

    def __init__(self) -> None:
        self._places: set[str] = set()
        self._starts: Scopes | None = None

    def add(self, place: str | None) -> None:
        if place is not None:
            self._places.add(place)
            self._starts = None

    def covers(self, root: str, uri: str) -> bool:
        if self._starts is None:
            self._starts = Scopes(Scope("", place) for place in self._places)
        return root in self._places or self._starts.find("", uri) is not None
