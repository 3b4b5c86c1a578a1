"""Remember the items of a run: ids exactly, on disk; hashes of bytes approximately, in eight bytes each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import numpy as np

from looktwice.errors import StoreError
from looktwice.sources.uri import exists


class SeenIds:
    """The ids that were met, each with its uri, in a temporary file: memory does not grow with the collection."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, uri TEXT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, item_id: str, uri: str) -> str | None:
        """Record an id. Return the uri where it was met before, None for a new id."""
        try:
            if self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (item_id, uri)).rowcount:
                return None
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"A temporary file cannot be written ({error}); free some space, or set SQLITE_TMPDIR."
            ) from error
        return self.get(item_id)

    def get(self, item_id: str) -> str | None:
        """Return the uri that an id was met with, None if it was not met."""
        found = self._database.execute("SELECT uri FROM seen WHERE id = ?", (item_id,)).fetchone()
        return None if found is None else str(found[0])

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.get(item_id) is not None

    def close(self) -> None:
        self._database.close()


class Roots:
    """A cache of which roots exist. An id belongs to its root while that exists; otherwise the collection has moved."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def exists(self, root: str) -> bool:
        """Return whether a root exists; each root is looked up once."""
        if root not in self._known:
            self._known[root] = not root or exists(root)
        return self._known[root]

    def keep(self, owner: str, root: str) -> bool:
        """Return whether an item of the root `owner` keeps its id from an item of `root`.

        Lists and programs name ids on purpose: they update the items of one another.
        """
        named = not owner.endswith("/") and not root.endswith("/")
        return owner != root and not named and self.exists(owner)


class Hashes:
    """A set of SHA-256 sums by their first 64 bits: a sum outside is certainly new, a sum inside must be looked up."""

    def __init__(self, sums: Iterable[str] = ()) -> None:
        self._known = np.sort(_prefixes(sums))

    def add(self, sums: Iterable[str]) -> None:
        new = np.unique(_prefixes(sums))
        places = np.searchsorted(self._known, new)
        fresh = np.append(self._known, np.uint64(0))[places] != new
        fresh |= places == len(self._known)
        # One pass over the known sums; union1d would sort all of them again, half a minute for ten million.
        self._known = np.insert(self._known, places[fresh], new[fresh])

    def __contains__(self, sha256: str) -> bool:
        wanted = np.uint64(int(sha256[:16], 16))
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and bool(self._known[place] == wanted)


def _prefixes(sums: Iterable[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.fromiter((int(one[:16], 16) for one in sums), np.uint64)
