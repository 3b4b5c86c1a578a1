"""One indexing run: its state, and what happens to a batch."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from looktwice.errors import MediaError, ModelError, TooManyFailures, UsageError
from looktwice.indexing.failures import Failures
from looktwice.indexing.reading import Failed, Known, Loaded, Planned, load_ahead
from looktwice.indexing.report import IndexReport
from looktwice.indexing.seen import Hashes, Seen
from looktwice.sources import Hidden, Source, Unreadable, display, parse_uri
from looktwice.sources.prefetch import pixels_of
from looktwice.store import LedgerEntry, Row, Table, batched, check_metadata
from looktwice.types import Encoder, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray

COMMIT_ROWS = 4096
COMMIT_SECONDS = 10.0
"""A commit follows after this many rows or seconds: what an interruption can cost."""

BATCH_PIXELS = 2**26
"""A batch for the encoder is closed at this many pixels (200 MB), however few pictures that is."""

_LOOKUP = 512

Key: TypeAlias = tuple[str, str | None, bool]
"""What decides a vector: the bytes, the text, and whether the bytes are a picture."""


class Run:
    """One pass over sources. `started` marks this run's ledger entries."""

    def __init__(
        self,
        table: Table,
        encoder: Encoder,
        batch_size: int,
        max_failures: int | None,
        progress: Callable[[IndexReport], None] | None,
        threads: int,
    ) -> None:
        self.table, self.encoder = table, encoder
        self.batch_size, self.max_failures, self.threads = batch_size, max_failures, threads
        self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.count: Counter[str] = Counter()
        self.withheld: list[str] = []
        self.unseen: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.hidden, self.torn = Hidden(), Hidden()
        self.failures = Failures(table.ledger)
        self.seen = Seen()
        self._progress = progress
        self._clock = self._committed = time.monotonic()
        self._hashes = Hashes(row["sha256"] for row in table.rows(["sha256"]))
        self._reasons: Counter[str] = Counter()
        self._rows: list[Row] = []
        self._fine: list[str] = []
        self._failures: list[LedgerEntry] = []
        self._pending: dict[Key, FloatArray | MediaError] = {}
        self._repeated: dict[Key, FloatArray] = {}  # a placeholder has many rows; they are looked up once
        self._roots: dict[str, bool] = {}

    def close(self) -> None:
        self.seen.close()

    def take(self, sources: Iterable[Source | Unreadable]) -> None:
        """Bring all sources into the table."""
        batch: list[Loaded] = []
        pixels = 0
        for one in load_ahead(self._plan(sources), self.threads):
            if isinstance(one, Failed):
                self._fail(one)
            elif one.unchanged:
                self.count["unchanged"] += 1
                self._fine.append(one.source.where)
            else:
                batch.append(one)
                pixels += pixels_of(one.image)
            if len(batch) >= self.batch_size or pixels >= BATCH_PIXELS:
                self._encode(batch)
                batch, pixels = [], 0
                self._tell()
            self._commit_if_due()
        self._encode(batch)
        self.flush()

    def flush(self) -> None:
        """Commit what is encoded, and bring the ledger up to date with it."""
        rows, fine, failures = self._rows, self._fine, self._failures
        self._rows, self._fine, self._failures, self._pending = [], [], [], {}
        self.table.add(rows)
        self._hashes.add(row.sha256 for row in rows)
        self.failures.clear(fine)
        self.failures.put(failures)
        self.table.build_keys()
        self._committed = time.monotonic()
        self._tell()

    def report(self) -> IndexReport:
        return IndexReport(
            **self.count,
            ignored=dict(self.ignored),
            withheld=tuple(self.withheld),
            unseen=dict(self.unseen),
            reasons=dict(self._reasons),
            seconds=round(time.monotonic() - self._clock, 3),
        )

    def _plan(self, sources: Iterable[Source | Unreadable]) -> Iterator[Planned]:
        for chunk in batched(sources, _LOOKUP):
            known = self._known([one.id for one in chunk if isinstance(one, Source)])
            for one in chunk:
                if isinstance(one, Unreadable):
                    self.hidden.add(one.hides)
                    self.torn.add(one.hides if one.torn else None)
                    yield Failed(one.uri, one.root, "scan", one.reason, one.detail)
                elif (planned := self._admit(one, known.get(one.id))) is not None:
                    yield planned

    def _known(self, ids: Sequence[str]) -> dict[str, Known]:
        columns = ["id", "uri", "root", "sha256", "text", "metadata", "width"]
        rows = self.table.lookup(ids, columns)
        return {row.pop("id"): Known(picture=row.pop("width") > 0, **row) for row in rows}

    def _admit(self, source: Source, known: Known | None) -> Planned | None:
        """Return what to do with a source; None where it was merely named twice."""
        foreign = known is not None and known.root != source.root and self.still_there(known.root)
        earlier = known.uri if known and foreign else self.seen.add(source.id, source.uri)
        if earlier == source.uri and source.root.endswith("/"):
            return None
        if earlier is not None:
            hint = f"the id {source.id!r} belongs to {display(earlier)}; put this one into a table of its own"
            return Failed.of(source, "scan", "duplicate-id", hint)
        try:
            check_metadata(source.metadata, self.table.columns)
        except UsageError as error:
            return Failed.of(source, "scan", "bad-record", str(error))
        return source, known

    def still_there(self, root: str) -> bool:
        """Whether the place that an id belongs to exists; where it does not, the collection has moved."""
        if root not in self._roots:
            self._roots[root] = not root or os.path.exists(parse_uri(root).path)
        return self._roots[root]

    def _encode(self, batch: Sequence[Loaded]) -> None:
        stored = self._stored(batch)
        vectors = {**self._repeated, **self._pending, **{key: row.vector for key, row in stored.items()}}
        new = {_key(one): one for one in batch if _key(one) not in vectors}
        vectors.update(zip(new, self._vectors(list(new.values())), strict=True))
        for one in batch:
            vector, source = vectors[_key(one)], one.source
            if isinstance(vector, MediaError):
                self._fail(Failed.of(source, "encode", vector.reason, vector.detail))
                continue
            size = (stored[_key(one)].width, stored[_key(one)].height) if one.same else one.size
            self._rows.append(
                Row(source.id, source.uri, one.sha256, *size, source.text, source.metadata, vector, source.root)
            )
            self._pending[_key(one)] = vector
            self._fine.append(source.where)
            self.count["updated" if one.known else "added"] += 1

    def _stored(self, batch: Sequence[Loaded]) -> dict[Key, Row]:
        """Return what the table holds already of the bytes and texts in a batch."""
        rows = self.table.get([one.source.id for one in batch if one.same])
        new = [one for one in batch if not one.same and _key(one) not in self._repeated]
        found = self.table.find_pictures({one.sha256 for one in new if one.sha256 in self._hashes})
        by_key = {(row.sha256, row.text, row.width > 0): row for row in [*found, *rows]}
        if len(self._repeated) > COMMIT_ROWS:
            self._repeated.clear()
        self._repeated.update((_key(one), by_key[_key(one)].vector) for one in new if _key(one) in by_key)
        return by_key

    def _vectors(self, batch: Sequence[Loaded]) -> list[FloatArray | MediaError]:
        """Return a vector, or why there is none, for each; what one of them breaks is tried one by one."""
        if not batch:
            return []
        try:
            return self._directions([_item(one) for one in batch])
        except UsageError:
            raise
        except (ValueError, RuntimeError, MemoryError, ModelError) as error:
            if not self._works(batch[0]):
                raise ModelError(f"The encoder {self.encoder.info.name} takes nothing at all: {error}") from error
            if len(batch) == 1:
                return [MediaError("encoder", str(error).splitlines()[0][:300] if str(error) else repr(error))]
            return [self._vectors([one])[0] for one in batch]

    def _works(self, like: Loaded) -> bool:
        """Whether the encoder refuses these items only: one of the same kind that is plain, it takes."""
        from PIL import Image

        picture = Image.new("RGB", (224, 224), (128, 128, 128)) if like.image else None
        try:
            self.encoder.encode([Item("plain", picture, like.source.text and "a picture")])
        except (ValueError, RuntimeError, MemoryError, ModelError):
            return False
        return True

    def _directions(self, items: Sequence[Item]) -> list[FloatArray | MediaError]:
        raw = np.asarray(self.encoder.encode(items), np.float32)
        if raw.shape != (len(items), self.encoder.info.dim):
            raise UsageError(f"The encoder {self.encoder.info.name} gave {raw.shape} for {len(items)} items.")
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        self.count["encoded"] += len(items)
        nothing = MediaError("no-direction", "the encoder gave a vector that is zero or not finite")
        return [
            row / norm if np.isfinite(norm[0]) and norm[0] > 0 else nothing
            for row, norm in zip(raw, norms, strict=True)
        ]

    def _fail(self, failure: Failed) -> None:
        self.count["failed"] += 1
        self._reasons[failure.reason] += 1
        self._failures.append(
            LedgerEntry(failure.uri, failure.stage, failure.reason, failure.detail, failure.root, self.started)
        )
        if self.max_failures is not None and self.count["failed"] > self.max_failures:
            raise TooManyFailures(
                f"{self.count['failed']} items failed, more than the {self.max_failures} allowed; the ledger says why."
            )

    def _commit_if_due(self) -> None:
        waiting = max(len(self._rows), len(self._fine), len(self._failures))
        if waiting >= COMMIT_ROWS or (waiting and time.monotonic() - self._committed >= COMMIT_SECONDS):
            self.flush()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report())


def _item(one: Loaded) -> Item:
    source = one.source
    return Item(source.id, one.image, source.text, source.metadata, source.uri, one.sha256)


def _key(one: Loaded) -> Key:
    return one.sha256, one.source.text, one.source.picture
