"""Write the failures of a run to the ledger, except those that are there already: every write is a version on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from looktwice.indexing.seen import Hashes
from looktwice.store import Ledger, LedgerEntry

STAGES = ("scan", "read", "decode", "encode")
"""Where an item can fail in a run; what the ledger says of its visual tokens is not for a run to forget."""


class Failures:
    """A ledger and what it held before, in eight bytes an entry; it is read when the first failure is to be written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: Hashes | None = None
        self._again = Hashes()

    def put(self, entries: Iterable[LedgerEntry]) -> None:
        """Write entries, but those that are there already; of one uri and stage the last one counts."""
        latest = {(entry.uri, entry.stage): entry for entry in entries}
        if not latest:
            return
        if self._known is None:
            self._known = Hashes(map(_digest, self._ledger))
        there = {key for key, entry in latest.items() if _digest(entry) in self._known}
        self._again.add(_digest(latest[key]) for key in there)
        self._ledger.put([entry for key, entry in latest.items() if key not in there])

    def clear(self, uris: Iterable[str]) -> None:
        """Forget that these uris failed, tokens apart."""
        if self._ledger.clear(uris, STAGES):
            self._known = None  # what went must be written again where it fails once more

    def __contains__(self, entry: LedgerEntry) -> bool:
        """Whether this run met the failure and left the entry as it was."""
        return _digest(entry) in self._again


def _digest(entry: LedgerEntry) -> str:
    text = "\0".join((entry.uri, entry.root, entry.stage, entry.reason, entry.detail, entry.item_id))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
