"""Write the new failures of a run to the ledger; known ones are skipped, because every write is a version on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from looktwice.indexing.seen import Hashes
from looktwice.store import Ledger, LedgerEntry, Table

SKIPPED = "skipped"
"""The stage of files that lack an extra: they are listed, and are no failures."""

ACCEPTED = "accepted:"
"""A failure that the user has accepted keeps its line under this prefix of its stage, and does not count again."""

FAILING = ("scan", "read", "decode", "encode")
STAGES = (*FAILING, SKIPPED, *(ACCEPTED + stage for stage in FAILING))
"""Stages of the lines that a run writes and deletes; it never deletes ledger lines about visual tokens."""


class Failures:
    """A ledger with its earlier entries, eight bytes each, which are read before the first failure is written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: Hashes | None = None
        self._again, self._accepted, self._met = Hashes(), Hashes(), Hashes()

    def put(self, entries: Iterable[LedgerEntry]) -> None:
        """Write the entries that are new; of one uri and stage the last one counts."""
        latest = {(entry.uri, entry.stage): entry for entry in entries}
        if not latest:
            return
        self._read()
        assert self._known is not None
        there = {key for key, entry in latest.items() if _digest(entry) in self._known}
        self._again.add(_digest(latest[key]) for key in there)
        self._ledger.put([entry for key, entry in latest.items() if key not in there])

    def accepts(self, entry: LedgerEntry) -> bool:
        """Return whether the user has accepted this failure; its line then counts as met again."""
        self._read()
        key = _accepted(entry)
        if key in self._accepted:
            self._met.add([key])
        return key in self._accepted

    def _read(self) -> None:
        if self._known is not None:
            return
        known, accepted = [], []
        for entry in self._ledger:
            known.append(_digest(entry))
            if entry.stage.startswith(ACCEPTED):
                accepted.append(_accepted(entry))
        self._known, self._accepted = Hashes(known), Hashes(accepted)

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
        if entry.stage.startswith(ACCEPTED):
            return _accepted(entry) in self._met
        return _digest(entry) in self._again


def accept_failures(table: Table, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Mark failures as accepted, so that later runs do not count them. Return their new lines."""
    accepted = [replace(entry, stage=ACCEPTED + entry.stage) for entry in entries if entry.stage in FAILING]
    with table.writer():
        table.ledger.put(accepted)
        for stage in FAILING:
            table.ledger.clear([one.uri for one in accepted if one.stage == ACCEPTED + stage], [stage])
    return accepted


def _digest(entry: LedgerEntry) -> str:
    return _hash(entry.uri, entry.root, entry.stage, entry.reason, entry.detail, entry.item_id)


def _accepted(entry: LedgerEntry) -> str:
    """Return the hash by which an accepted failure is known again: its words may change."""
    return _hash(entry.uri, entry.root, entry.stage.removeprefix(ACCEPTED), entry.reason, entry.item_id)


def _hash(*parts: str) -> str:
    text = "\0".join(parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
