"""Import vectors that exist: a folder of clip-retrieval, Parquet files, a LanceDB table.

A row becomes an item with its vector, text and metadata; nothing is encoded. A row whose image is a file here becomes
an image item, for the second look; the others are items of their text. Vectors must come from the table's encoder: up
to SAMPLE images are encoded and compared.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from looktwice.errors import MediaError, Mismatch, UnknownName, UsageError
from looktwice.indexing.importing_sources import batches_of
from looktwice.sources import file_uri, images, read_uri
from looktwice.sources.reading import Reading
from looktwice.store import Row, Table
from looktwice.types import Encoder, Item

if TYPE_CHECKING:
    from looktwice.types import FloatArray

SAMPLE = 4
LEAST_COSINE = 0.95
"""Below it a vector is not that of its image: the same encoder with other resampling stays above 0.99."""

_GUESSES = {
    "vector": ("vector", "embedding", "image_embedding", "emb"),
    "id": ("id", "key", "item_id"),
    "text": ("text", "caption"),
    "image": ("image_path", "image", "path", "filename", "url", "uri"),
}
Names: TypeAlias = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Counts of an import. `images` of the imported items are files here; `reasons` says why rows were left out."""

    imported: int = 0
    images: int = 0
    compared: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def import_vectors(table: Table, source: Path, encoder: Encoder, names: Names | None = None) -> ImportReport:
    """Write the rows of `source` into `table`. `names` maps vector, id, text and image to columns.

    Raises UsageError for a source of no known kind or without vectors, UnknownName for a column that does not exist,
    Mismatch if the vectors have another length or are not those of the encoder.
    """
    table.manifest.check(encoder.info, table.path)
    run = _Import(table, source, encoder)
    with table.writer():
        for vectors, records in batches_of(source, (names or {}).get("vector"), _GUESSES["vector"]):
            run.take(vectors, records, names or {})
    if not run.count["imported"]:
        why = ", ".join(f"{n:,} {reason}" for reason, n in run.reasons.items()) or "it is empty"
        raise UsageError(f"No row of {source} can be imported ({why}); check its vectors and --vector.")
    return ImportReport(**run.count, reasons=dict(run.reasons))


class _Import:
    """One import, with its counts."""

    def __init__(self, table: Table, source: Path, encoder: Encoder) -> None:
        self.table, self.encoder, self.root = table, encoder, file_uri(source)
        self.base = source if source.is_dir() and source.suffix != ".lance" else source.parent
        self.count: Counter[str] = Counter(imported=0, images=0, compared=0, failed=0)
        self.reasons: Counter[str] = Counter()
        self._number = 0
        self._met: set[str] = set()

    def take(self, vectors: FloatArray, records: list[dict[str, Any]], names: Names) -> None:
        """Write one batch."""
        if vectors.shape[1] != self.encoder.info.dim:
            raise Mismatch(
                f"The vectors have {vectors.shape[1]} numbers, those of {self.encoder.info.name} have "
                f"{self.encoder.info.dim}; name the encoder that made them with --encoder."
            )
        columns = columns_of(records, names)
        rows = [self._row(vector, record, columns) for vector, record in zip(vectors, records, strict=True)]
        good = [row for row in rows if row is not None]
        self.table.add(good)
        self.count["imported"] += len(good)
        self.count["images"] += sum(row.width > 0 for row in good)

    def _row(self, vector: FloatArray, record: dict[str, Any], columns: Names) -> Row | None:
        self._number += 1
        named = {kind: record.get(name) for kind, name in columns.items() if name is not None}
        left = {key: value for key, value in record.items() if key not in columns.values()}
        item_id = str(named["id"]) if named.get("id") not in (None, "") else f"{self._number - 1:09}"
        length = float(np.linalg.norm(vector))
        flawed = not (math.isfinite(length) and length > 0)
        if flawed or item_id in self._met:
            self.count["failed"] += 1
            self.reasons["no-direction" if flawed else "duplicate-id"] += 1
            return None
        self._met.add(item_id)
        text = named.get("text")
        text = text if isinstance(text, str) and text.strip() else None
        metadata = {key: plain for key, value in left.items() if (plain := _plain(value)) is not None}
        uri, sha256, size = self._image(named.get("image"), vector / length)
        if uri == "" and isinstance(named.get("image"), str):
            metadata.setdefault("image", named["image"])
        sha256 = sha256 or hashlib.sha256((text or "").encode()).hexdigest()
        return Row(item_id, uri, sha256, *size, text, metadata, vector / length, self.root)

    def _image(self, value: Any, vector: FloatArray) -> tuple[str, str, tuple[int, int]]:
        """Return uri, hash and size of an image that is a file here; the first ones are compared with their vectors."""
        if not isinstance(value, str) or not (uri := self._uri(value)):
            return "", "", (0, 0)
        try:
            data = read_uri(uri)
            image, size = images.load(data, Reading(self.table.manifest.reading, self.encoder.info.side))
        except MediaError:
            return "", "", (0, 0)
        if self.count["compared"] < SAMPLE:
            self._compare(Item(value, image), vector)
        return uri, hashlib.sha256(data).hexdigest(), size

    def _uri(self, value: str) -> str:
        """Return the uri of an image of this machine: of a path, or a file: uri as `export` writes it; else ""."""
        if value.startswith("file://"):
            return value
        return file_uri(self.base / value) if "://" not in value and os.path.isfile(self.base / value) else ""

    def _compare(self, item: Item, vector: FloatArray) -> None:
        own = np.asarray(self.encoder.encode([item])[0], np.float64)
        cosine = float(own @ vector / np.linalg.norm(own))
        if not cosine >= LEAST_COSINE:
            raise Mismatch(
                f"The vector of {item.id} is not that of {self.encoder.info.name} (cosine {cosine:.2f}); name the "
                "encoder that made the vectors with --encoder."
            )
        self.count["compared"] += 1


def columns_of(records: Iterable[Mapping[str, Any]], names: Names) -> dict[str, str | None]:
    """Return the columns of id, text and image: the named ones, else the first usual name that exists."""
    known = set(next(iter(records), {}))
    found: dict[str, str | None] = {}
    for kind in ("id", "text", "image"):
        if (name := names.get(kind)) is not None and name not in known:
            raise UnknownName(f"column for --{kind}", name, known)
        found[kind] = name or next((guess for guess in _GUESSES[kind] if guess in known), None)
    return found


def _plain(value: Any) -> Any:
    """Return a value as metadata holds it, None for one that it cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date):  # datetime too
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if isinstance(value, str | int | bool) else None
