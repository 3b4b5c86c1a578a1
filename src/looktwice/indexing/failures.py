"""Write the new failures of a run to the ledger; known ones are skipped, because every write is a version on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from looktwice.indexing.seen import Hashes
from looktwice.store import Ledger, LedgerEntry

STAGES = ("scan", "read", "decode", "encode")
"""Stages at which an item can fail in a run; a run never deletes ledger lines about visual tokens."""


class Failures:
    """A ledger with its earlier entries, eight bytes each, which are read before the first failure is written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: Hashes | None = None
        self._again = Hashes()

    def put(self, entries: Iterable[LedgerEntry]) -> None:
        """Write the entries that are new; of one uri and stage the last one counts."""
        latest = {(entry.uri, entry.stage): entry for entry in entries}
        if not latest:
            return
        if self._known is None:
            self._known = Hashes(map(_digest, self._ledger))
        there = {key for key, entry in latest.items() if _digest(entry) in self._known}
        self._again.add(_digest(latest[key]) for key in there)
        self._ledger.put([entry for key, entry in latest.items() if key not in there])

    def clear(self, uris: Iterable[str]) -> None:
        """Delete the failures of these uris, except for tokens."""
        if self._ledger.clear(uris, STAGES):
            self._known = None  # a deleted failure must be written again if it comes back

    def clear_own(self, ids: Sequence[str]) -> None:
        """Delete the failures of items that belong to no place, by their ids: their uri changes with their image."""
        if ids and self._ledger.clear_ids("", ids, STAGES):
            self._known = None

    def __contains__(self, entry: LedgerEntry) -> bool:
        """Return whether this run met the failure and left the entry unchanged."""
        return _digest(entry) in self._again


def _digest(entry: LedgerEntry) -> str:
    text = "\0".join((entry.uri, entry.root, entry.stage, entry.reason, entry.detail, entry.item_id))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
