"""Define a benchmark, independently of its file formats."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from looktwice.evaluate.trec import Qrels
from looktwice.sources import Source, Unreadable, images
from looktwice.types import Item


@dataclass(frozen=True, slots=True)
class Query:
    """One query. If `box` (left, top, right, bottom in pixels) is given, the query is that part of the image."""

    source: Source
    box: tuple[float, float, float, float] | None = None

    @property
    def id(self) -> str:
        """Return the query's id."""
        return self.source.id

    def load(self) -> Item:
        """Read the query. Raises MediaError for an unreadable image."""
        source, data = self.source, self.source.read()
        if not source.has_image:
            return Item(source.id, text=source.text)
        image, (width, _) = images.load(data)
        sha256: str | None = hashlib.sha256(data).hexdigest()
        if self.box is not None:
            factor = image.width / width  # images.load reduces very large images, but boxes are in the file's pixels
            image = image.crop(tuple(round(edge * factor) for edge in self.box))  # type: ignore[arg-type]
            sha256 = None  # the hash would claim the pixels of the whole file
        return Item(source.id, image, source.text, source.metadata, source.uri, sha256)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A benchmark: items to index, queries, labels and measures.

    Labels above 0 are relevant; labels below 0 are junk, and their documents leave a list before it is measured.
    `measures` are the benchmark's own; it reports the first one. `groups` are further sets of labels, each measured
    like the whole. With `candidates`, a query chooses only among its own items, whose order does not count. `depth` is
    the length of the benchmark's lists. `notes` record the counts and any difference from the published set.

    `means` are groups whose figure is the mean of those of other groups. With `confidence`, GAP and ACC are reported
    too (see `evaluate.confidence`), and queries without labels are asked.
    """

    name: str
    items: Iterable[Source | Unreadable]
    queries: Sequence[Query]
    qrels: Qrels
    measures: tuple[str, ...]
    depth: int = 100
    groups: Mapping[str, Qrels] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] | None = None
    prompt: str = "auto"
    notes: tuple[str, ...] = ()
    means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: bool = False
