"""Records that pass from `encode_batches` to `commit`: plain data, so that they can be pickled and sent elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from looktwice.sources import Scan, Scope, Source
from looktwice.store import LedgerEntry, Row
from looktwice.types import EncoderInfo


@dataclass(frozen=True, slots=True)
class Met:
    """An item that a scan came by. `where` is the uri that the ledger knows it by: its line in a list, else `uri`."""

    id: str
    uri: str
    root: str
    where: str
    sha256: str = ""

    @classmethod
    def of(cls, source: Source, sha256: str = "") -> Met:
        return cls(source.id, source.uri, source.root, source.where, sha256)


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row to be written. `known`: the table had its id when it was encoded."""

    met: Met
    row: Row
    known: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """One failure, and the item that failed; `met` is None for a place, and for an item whose id is another's.

    `hides` and `torn` are those of `sources.Unreadable`.
    """

    entry: LedgerEntry
    met: Met | None = None
    hides: str | None = None
    torn: bool = False

    @classmethod
    def of(cls, source: Source, stage: str, reason: str, detail: str) -> Failed:
        detail = source.describe_failure(detail)
        entry = LedgerEntry(source.where, stage, reason, detail, source.root, item_id=source.id)
        return cls(entry, Met.of(source))


@dataclass(frozen=True, slots=True)
class Scanned:
    """State what a scan accounts for, once it was read to its end; see `sources.Scan`."""

    scopes: tuple[Scope, ...]
    empty: tuple[Scope, ...]
    ignored: Mapping[str, int]

    @classmethod
    def of(cls, scan: Scan) -> Scanned:
        return cls(scan.scopes, tuple(scan.empty), Counter(scan.ignored))


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A part of a run, ready to be committed. `encoded`: how many items went through the encoder.

    `roots` are in the first batch of a scan, `scanned` is in its last.
    """

    encoder: EncoderInfo
    rows: tuple[EncodedRow, ...] = ()
    unchanged: tuple[Met, ...] = ()
    failures: tuple[Failed, ...] = ()
    encoded: int = 0
    roots: tuple[str, ...] = ()
    scanned: Scanned | None = field(default=None, repr=False)
