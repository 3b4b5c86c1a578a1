"""What a benchmark is, whatever its files look like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from looktwice.evaluate.trec import Qrels
from looktwice.sources import Source, Unreadable, images
from looktwice.types import Item


@dataclass(frozen=True, slots=True)
class Query:
    """One query; of an image only `box` (left, top, right, bottom in pixels) is asked for, where there is one."""

    source: Source
    box: tuple[float, float, float, float] | None = None

    @property
    def id(self) -> str:
        """The query's id."""
        return self.source.id

    def load(self) -> Item:
        """Read the query. Raises MediaError where its image cannot be read."""
        source, data = self.source, self.source.read()
        if not source.picture:
            return Item(source.id, text=source.text)
        image, (width, _) = images.load(data)
        sha256: str | None = hashlib.sha256(data).hexdigest()
        if self.box is not None:
            factor = image.width / width  # media reduces very large images
            image = image.crop(tuple(round(edge * factor) for edge in self.box))  # type: ignore[arg-type]
            sha256 = None  # these are no longer the pixels of the file
        return Item(source.id, image, source.text, source.metadata, source.uri, sha256)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A benchmark: what to index, what to ask, what is right, how it is measured.

    Labels above 0 are relevant; labels below 0 are junk and leave a list before it is measured. `measures` are the
    benchmark's own, the first being the one it reports. `groups` are further sets of labels, each measured like the
    whole. With `candidates`, a query chooses among its own items only, instead of among all; their order counts for
    nothing. `depth` is how long the benchmark's lists are. `notes` say what was found and anything that differs from
    the published set.
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
