"""Encode sources to batches of rows: the first half of indexing. It writes nothing, so it may run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from looktwice.errors import MediaError, ModelError, UsageError
from looktwice.indexing.batches import EncodedBatch, EncodedRow, Failed, Met, Scanned
from looktwice.indexing.failures import SKIPPED
from looktwice.indexing.naming import apart, named
from looktwice.indexing.reading import Decoded, Known, Loading, Planned, known_rows, load_ahead
from looktwice.indexing.seen import Hashes, Roots, Seen
from looktwice.sources import Scan, Source, Unreadable, display, exif
from looktwice.sources.formats import NEEDS
from looktwice.sources.prefetch import pixels_of
from looktwice.sources.reading import NEWEST, Reading
from looktwice.store import LedgerEntry, PreviewRow, Row, TableReader, batched, metadata_json, read_metadata
from looktwice.types import Encoder, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray

BATCH_PIXELS = 2**26
"""A batch for the encoder is closed at this many pixels (200 MB), even with few images."""

REMEMBERED = 8192
"""Vectors kept in memory for copies of the same bytes; older ones are looked up in the table."""

YIELD_SECONDS = 1.0
_LOOKUP = 512

VectorKey: TypeAlias = tuple[str, str | None, bool]
"""A key that determines a vector: the bytes' hash, the text, and whether the bytes are an image."""


def encode_batches(
    sources: Iterable[Source | Unreadable],
    encoder: Encoder,
    *,
    known: TableReader | None = None,
    batch_size: int = 64,
    threads: int = 2,
    previews: int | None = None,
    restore: bool = False,
) -> Generator[EncodedBatch]:
    """Yield batches for `commit`: rows, failures and unchanged items, in the order of `sources`.

    `known` is the table to compare with, or a snapshot of it: items that it holds with the same bytes are not encoded
    again. Without it everything is encoded. This only reads; another process may commit the pickled batches.

    `previews` is the longest side of previews in pixels, by default that of the known table, or none. Items that were
    deleted from the known table on purpose are passed over, unless `restore` brings them back.
    """
    if batch_size < 1 or threads < 1:
        raise UsageError(f"batch_size and threads must be at least 1, not {batch_size} and {threads}.")
    side = previews if previews is not None else known.manifest.previews if known is not None else 0
    return _batches(sources, _Run(encoder, known, batch_size, threads, side, restore))


def _batches(sources: Iterable[Source | Unreadable], work: _Run) -> Generator[EncodedBatch]:
    info = work.encoder.info
    scan = sources if isinstance(sources, Scan) else None
    yield EncodedBatch(info, roots=scan.roots if scan else ())
    with closing(work) as run:
        yield from run.batches(sources)
    yield EncodedBatch(info, scanned=Scanned.of(scan) if scan else None)


class _Run:
    """One pass over sources, with the batch in progress."""

    def __init__(
        self, encoder: Encoder, known: TableReader | None, batch_size: int, threads: int, side: int, restore: bool
    ) -> None:
        self.encoder, self.known, self.batch_size, self.threads = encoder, known, batch_size, threads
        self.side, self.restore = side, restore
        self.exif = known is not None and exif.COLUMNS.keys() <= known.columns.keys()
        self.reading = Reading(NEWEST if known is None else known.manifest.reading, encoder.info.side)
        self._seen, self._roots = Seen(), Roots()
        self._folders = {root for root in (known.manifest.roots if known else ()) if root.endswith("/")}
        self._hashes: Hashes | None = None  # of the table; not worth reading for a few items
        self._fresh: list[str] = []  # hashes of rows that are newer than `_hashes`
        self._vectors: dict[VectorKey, FloatArray | MediaError] = {}
        self._clear()

    def close(self) -> None:
        self._seen.close()

    def batches(self, sources: Iterable[Source | Unreadable]) -> Iterator[EncodedBatch]:
        batch: list[Decoded] = []
        pixels = 0
        for one in load_ahead(self._plan(sources), self.threads, Loading(self.reading, self.side, self.exif)):
            if isinstance(one, Failed):
                self._failures.append(one)
            elif one.unchanged:
                self._unchanged.append(Met.of(one.source, one.sha256))
                self._show(one)
            else:
                batch.append(one)
                pixels += pixels_of(one.image)
            if len(batch) >= self.batch_size or pixels >= BATCH_PIXELS:
                self._encode(batch)
                batch, pixels = [], 0
            if self._is_due():
                yield self._take()
        self._encode(batch)
        yield self._take()

    def _is_due(self) -> bool:
        """Return whether to yield: at once for failures, as a run may stop at them; else at a full batch or in time."""
        if self._rows or self._failures or self._previews or len(self._unchanged) >= _LOOKUP:
            return True
        return time.monotonic() - self._since >= YIELD_SECONDS

    def _take(self) -> EncodedBatch:
        made = tuple(self._rows), tuple(self._unchanged), tuple(self._failures), self._encoded
        extra = tuple(self._previews), tuple(self._deleted)
        self._clear()
        return EncodedBatch(self.encoder.info, *made, *extra, reading=self.reading.version)

    def _show(self, one: Decoded) -> None:
        if one.preview:
            self._previews.append(PreviewRow(one.source.id, one.sha256, one.preview))

    def _clear(self) -> None:
        self._rows: list[EncodedRow] = []
        self._unchanged: list[Met] = []
        self._failures: list[Failed] = []
        self._previews: list[PreviewRow] = []
        self._deleted: list[Met] = []
        self._encoded = 0
        self._since = time.monotonic()

    def _plan(self, sources: Iterable[Source | Unreadable]) -> Iterator[Planned]:
        for chunk in batched(sources, _LOOKUP):
            new = [one for one in chunk if isinstance(one, Source)]
            known, gone = known_rows(self.known, self._ids(new), self.side), self._gone(new)
            for one in chunk:
                if isinstance(one, Unreadable):
                    stage = SKIPPED if one.reason in NEEDS else "scan"
                    entry = LedgerEntry(one.uri, stage, one.reason, one.detail, one.root, item_id=one.item_id)
                    yield Failed(entry, None, one.hides, one.torn)
                else:
                    yield from self._named(one, known, gone)

    def _named(self, one: Source, known: Mapping[str, Known], gone: Collection[tuple[str, str]]) -> Iterator[Planned]:
        """Yield the plan for a source under its id; nothing if it was deleted on purpose or given twice."""
        source, row = one, known.get(one.id)
        if len(self._folders) > 1:
            source, row = named(one, known, self._seen.get, self._roots)
        if row is None and (source.root, source.id) in gone:
            self._deleted.append(Met.of(source))
        elif (planned := self._admit(source, row)) is not None:
            yield planned

    def _ids(self, sources: Sequence[Source]) -> list[str]:
        """Return the ids that sources may have; both of each as soon as there are several folders."""
        self._folders.update(source.root for source in sources if source.root.endswith("/"))
        both = sources if len(self._folders) > 1 else ()
        return [*(one.id for one in sources), *(apart(one).id for one in both if one.root.endswith("/"))]

    def _gone(self, sources: Sequence[Source]) -> set[tuple[str, str]]:
        """Return root and id of items that somebody deleted."""
        if self.known is None or self.restore:
            return set()
        return self.known.deleted((one.root, name) for one in sources if one.root for name in self._ids([one]))

    def _admit(self, source: Source, known: Known | None) -> Planned | None:
        """Return the plan for a source; None if the same item was given twice."""
        foreign = known is not None and self._roots.keep(known.root, source.root)
        earlier = known.uri if known and foreign else self._seen.add(source.id, source.uri)
        if earlier == source.uri and source.root.endswith("/"):
            return None
        if earlier is not None:
            return replace(Failed.of(source, "scan", "duplicate-id", duplicate(source.id, earlier)), met=None)
        try:
            metadata_json(source.metadata)
        except UsageError as error:
            return Failed.of(source, "scan", "bad-record", str(error))
        return _with_stated(source, known), known

    def _encode(self, batch: Sequence[Decoded]) -> None:
        stored = self._stored(batch)
        vectors = {_key(one): self._vectors[_key(one)] for one in batch if _key(one) in self._vectors}
        vectors |= {key: row.vector for key, row in stored.items()}
        new = {_key(one): one for one in batch if _key(one) not in vectors}
        vectors.update(zip(new, self._vectors_of(list(new.values())), strict=True))
        for one in batch:
            vector, source = vectors[_key(one)], one.source
            if isinstance(vector, MediaError):
                self._failures.append(Failed.of(source, "encode", vector.reason, vector.detail))
                continue
            size = (stored[_key(one)].width, stored[_key(one)].height) if one.same else one.size
            row = Row(source.id, source.uri, one.sha256, *size, source.text, source.metadata, vector, source.root)
            self._show(one)
            self._rows.append(EncodedRow(Met.of(source, one.sha256), row, one.known is not None, one.same))
        self._remember(vectors)

    def _stored(self, batch: Sequence[Decoded]) -> dict[VectorKey, Row]:
        """Return the rows of the table with the bytes and texts of a batch."""
        if self.known is None:
            return {}
        rows = self.known.get([one.source.id for one in batch if one.same])
        if self._hashes is None and len(self._fresh) >= _LOOKUP:
            self._hashes = Hashes(row["sha256"] for row in self.known.rows(["sha256"]))
        sums = {one.sha256 for one in batch if not one.same and _key(one) not in self._vectors}
        found = self.known.find_images(sums if self._hashes is None else filter(self._hashes.__contains__, sums))
        return {(row.sha256, row.text, row.width > 0): row for row in [*found, *rows]}

    def _remember(self, vectors: dict[VectorKey, FloatArray | MediaError]) -> None:
        """Keep vectors for later copies, and the hashes of rows that will be in the table by then."""
        self._fresh += [key[0] for key in vectors if key not in self._vectors]
        self._vectors.update(vectors)
        while len(self._vectors) > REMEMBERED:
            del self._vectors[next(iter(self._vectors))]
        if self.known is None:
            self._fresh = []
        elif self._hashes is not None and len(self._fresh) >= REMEMBERED // 2:  # rarely: each time copies all hashes
            self._hashes.add(self._fresh)
            self._fresh = []

    def _vectors_of(self, batch: Sequence[Decoded]) -> list[FloatArray | MediaError]:
        """Return a vector or a failure for each item; a batch that fails is retried item by item."""
        if not batch:
            return []
        try:
            return self._directions([_item(one) for one in batch])
        except UsageError:
            raise
        except (ValueError, RuntimeError, MemoryError, ModelError) as error:
            if not self._works(batch[0]):
                raise ModelError(
                    f"The encoder {self.encoder.info.name} fails on every item ({error}); choose another."
                ) from error
            if len(batch) == 1:
                return [MediaError("encoder", str(error).splitlines()[0][:300] if str(error) else repr(error))]
            return [self._vectors_of([one])[0] for one in batch]

    def _works(self, like: Decoded) -> bool:
        """Return whether the encoder takes a plain item of the same kind, so that only these items are at fault."""
        from PIL import Image

        image = Image.new("RGB", (224, 224), (128, 128, 128)) if like.image else None
        try:
            self.encoder.encode([Item("plain", image, like.source.text and "a picture")])
        except (ValueError, RuntimeError, MemoryError, ModelError):
            return False
        return True

    def _directions(self, items: Sequence[Item]) -> list[FloatArray | MediaError]:
        raw = np.asarray(self.encoder.encode(items), np.float32)
        if raw.shape != (len(items), self.encoder.info.dim):
            raise UsageError(
                f"The encoder {self.encoder.info.name} returned shape {raw.shape} for {len(items)} items; it must "
                f"return ({len(items)}, {self.encoder.info.dim})."
            )
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        self._encoded += len(items)
        nothing = MediaError("no-direction", "the encoder returned a zero or non-finite vector")
        return [
            row / norm if np.isfinite(norm[0]) and norm[0] > 0 else nothing
            for row, norm in zip(raw, norms, strict=True)
        ]


def _with_stated(source: Source, known: Known | None) -> Source:
    """Return a file of a folder with the text and metadata that somebody gave its item by id; a file states none."""
    is_file = source.root.endswith("/") and "#" not in source.uri
    if known is None or not is_file or source.metadata or source.text is not None or known.root != source.root:
        return source
    return replace(source, text=known.text, metadata=read_metadata(known.metadata))


def duplicate(item_id: str, earlier: str) -> str:
    """Say that an id belongs to the item at the uri `earlier`."""
    return f"the id {item_id!r} belongs to {display(earlier)}; give this item another id or a table of its own"


def _item(one: Decoded) -> Item:
    source = one.source
    return Item(source.id, one.image, source.text, source.metadata, source.uri, one.sha256)


def _key(one: Decoded) -> VectorKey:
    return one.sha256, one.source.text, one.source.picture
