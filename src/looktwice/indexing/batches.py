"""Hold the records that `encode_batches` passes to `commit`: plain data that can be pickled and sent elsewhere."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from looktwice.sources import Scan, Scope, Source
from looktwice.store import LedgerEntry, PreviewRow, Row
from looktwice.types import EncoderInfo


@dataclass(frozen=True, slots=True)
class ScannedItem:
    """An item that a scan met. `where` is its uri in the ledger: its line in a list, else `uri`."""

    id: str
    uri: str
    root: str
    where: str
    sha256: str = ""

    @classmethod
    def of(cls, source: Source, sha256: str = "") -> ScannedItem:
        return cls(source.id, source.uri, source.root, source.where, sha256)

    @property
    def suffix(self) -> str:
        """Return the suffix of the item's file in lower case; empty for an item without a file."""
        return posixpath.splitext(self.uri.partition("#")[0])[1].lower() if self.uri.startswith("file:") else ""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row to write. `known`: the table had its id when it was encoded; `same`: and bytes and text were the same."""

    met: ScannedItem
    row: Row
    known: bool
    same: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """One failure, and the item that failed; `met` is None for a place, and for an item whose id another item has.

    See `sources.Unreadable` for `hides` and `torn`.
    """

    entry: LedgerEntry
    met: ScannedItem | None = None
    hides: str | None = None
    torn: bool = False

    @classmethod
    def of(cls, source: Source, stage: str, reason: str, detail: str) -> Failed:
        detail = source.describe_failure(detail)
        entry = LedgerEntry(source.where, stage, reason, detail, source.root, item_id=source.id)
        return cls(entry, ScannedItem.of(source))


@dataclass(frozen=True, slots=True)
class Scanned:
    """The scopes of a scan that was read to its end; see `sources.Scan`."""

    scopes: tuple[Scope, ...]
    empty: tuple[Scope, ...]
    ignored: Mapping[str, int]

    @classmethod
    def of(cls, scan: Scan) -> Scanned:
        return cls(scan.scopes, tuple(scan.empty), Counter(scan.ignored))


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A part of a run, ready to commit. `encoded`: how many items went through the encoder.

    `previews` belong to its rows and unchanged items. `deleted` items were passed over: deleted on purpose. The first
    batch of a scan holds `roots`, its last one `scanned`. `reading`: the version of the rules by which images became
    pixels; None for a batch without rows.
    """

    encoder: EncoderInfo
    rows: tuple[EncodedRow, ...] = ()
    unchanged: tuple[ScannedItem, ...] = ()
    failures: tuple[Failed, ...] = ()
    encoded: int = 0
    previews: tuple[PreviewRow, ...] = ()
    deleted: tuple[ScannedItem, ...] = ()
    roots: tuple[str, ...] = ()
    scanned: Scanned | None = field(default=None, repr=False)
    reading: int | None = None
