"""Encode sources to batches of rows: the first half of indexing. It writes nothing, so it may run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from looktwice.errors import MediaError, ModelError, UsageError
from looktwice.indexing.batches import EncodedBatch, EncodedRow, Failed, Scanned, ScannedItem
from looktwice.indexing.planning import LOOKUP, Planner, previews_of
from looktwice.indexing.reading import Decoded, Loading, Planned, load_ahead
from looktwice.indexing.seen import Hashes
from looktwice.sources import Scan, Source, Unreadable, exif
from looktwice.sources.prefetch import pixels_of
from looktwice.sources.reading import NEWEST, Reading
from looktwice.store import PreviewRow, Row, TableReader
from looktwice.types import Encoder, EncoderInfo, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray

BATCH_PIXELS = 2**26
"""A batch for the encoder is closed at this many pixels (200 MB), even with few images."""

REMEMBERED = 8192
"""Vectors kept in memory for copies of the same bytes; older ones are looked up in the table."""

YIELD_SECONDS = 1.0

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
    side = previews_of(known) if previews is None else previews
    work = PlannedEncoder(encoder, known, batch_size, threads, side)
    return encode_with(work.batches, sources, encoder.info, Planner(known, side, restore))


def encode_with(
    encode: Callable[[Iterable[Planned]], Iterable[EncodedBatch]],
    sources: Iterable[Source | Unreadable],
    info: EncoderInfo,
    planner: Planner,
) -> Generator[EncodedBatch]:
    """Yield the batches of a run that is planned here and encoded by `encode`, here or elsewhere, in order."""
    scan = sources if isinstance(sources, Scan) else None
    yield EncodedBatch(info, roots=scan.roots if scan else ())
    with closing(planner):
        yield from encode(planner.plan(sources))
    yield EncodedBatch(info, scanned=Scanned.of(scan) if scan else None)


class PlannedEncoder:
    """An encoder of planned items, with the batch in progress. It keeps vectors for later copies of the same bytes."""

    def __init__(self, encoder: Encoder, known: TableReader | None, batch_size: int, threads: int, side: int) -> None:
        if batch_size < 1 or threads < 1:
            raise UsageError(f"batch_size and threads must be at least 1, not {batch_size} and {threads}.")
        self.encoder, self.known, self.batch_size, self.threads = encoder, known, batch_size, threads
        self.side = side
        self.exif = known is not None and exif.COLUMNS.keys() <= known.columns.keys()
        self.reading = Reading(NEWEST if known is None else known.manifest.reading, encoder.info.side)
        self._hashes: Hashes | None = None  # of the table; not worth reading for a few items
        self._fresh: list[str] = []  # hashes of rows that are newer than `_hashes`
        self._vectors: dict[VectorKey, FloatArray | MediaError] = {}
        self._clear()

    def batches(self, plan: Iterable[Planned]) -> Iterator[EncodedBatch]:
        """Yield the batches of a plan, or of a part of it."""
        batch: list[Decoded] = []
        pixels = 0
        for one in load_ahead(plan, self.threads, Loading(self.reading, self.side, self.exif)):
            if isinstance(one, Failed):
                self._failures.append(one)
            elif isinstance(one, ScannedItem):
                self._deleted.append(one)
            elif one.unchanged:
                self._unchanged.append(ScannedItem.of(one.source, one.sha256))
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
        if self._rows or self._failures or self._previews or len(self._unchanged) >= LOOKUP:
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
        self._unchanged: list[ScannedItem] = []
        self._failures: list[Failed] = []
        self._previews: list[PreviewRow] = []
        self._deleted: list[ScannedItem] = []
        self._encoded = 0
        self._since = time.monotonic()

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
            self._rows.append(EncodedRow(ScannedItem.of(source, one.sha256), row, one.known is not None, one.same))
        self._remember(vectors)

    def _stored(self, batch: Sequence[Decoded]) -> dict[VectorKey, Row]:
        """Return the rows of the table with the bytes and texts of a batch."""
        if self.known is None:
            return {}
        rows = self.known.get([one.source.id for one in batch if one.same])
        if self._hashes is None and len(self._fresh) >= LOOKUP:
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


def _item(one: Decoded) -> Item:
    source = one.source
    return Item(source.id, one.image, source.text, source.metadata, source.uri, one.sha256)


def _key(one: Decoded) -> VectorKey:
    return one.sha256, one.source.text, one.source.has_image
