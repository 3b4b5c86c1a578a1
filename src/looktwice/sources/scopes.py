"""What is gone: items in the table that a scan should have met and did not."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable

from looktwice.sources.records import Scope


class Scopes:
    """Finds the scope that accounts for an item, among any number of them."""

    def __init__(self, scopes: Iterable[Scope]) -> None:
        self._prefixes: dict[str, list[str]] = defaultdict(list)
        for scope in sorted(scopes, key=lambda scope: (scope.root, scope.prefix)):
            known = self._prefixes[scope.root]
            # Sorted, a scope inside another comes after it; without those, the last one before a uri is the only one.
            if not known or not scope.prefix.startswith(known[-1]):
                known.append(scope.prefix)

    def find(self, root: str, uri: str) -> Scope | None:
        """Return the outermost scope that covers an item, or None."""
        prefixes = self._prefixes.get(root, [])
        place = bisect.bisect_right(prefixes, uri) - 1
        return Scope(root, prefixes[place]) if place >= 0 and uri.startswith(prefixes[place]) else None

    def accounts_for(self, root: str, uri: str) -> bool:
        """Whether a failure at `uri` would have been met again, an archive's own included."""
        return self.find(root, uri) is not None or self.find(root, f"{uri}#") is not None


class Hidden:
    """Places that a scan could not see into, so that nothing in them may be called gone."""

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
