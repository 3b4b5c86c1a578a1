"""Decide what happens to each source of a run: its id, its row in the table, and what fails or is passed over.

One process plans a whole run, because ids must be told apart across all of its sources. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from looktwice.errors import UsageError
from looktwice.indexing.batches import Failed, ScannedItem
from looktwice.indexing.failures import SKIPPED
from looktwice.indexing.naming import apart, named
from looktwice.indexing.reading import KnownRow, Planned, known_rows
from looktwice.indexing.seen import Roots, SeenIds
from looktwice.sources import Source, Unreadable, display
from looktwice.sources.formats import NEEDS
from looktwice.store import LedgerEntry, TableReader, batched, metadata_json, read_metadata

LOOKUP = 512
"""Sources that are looked up in the table at once."""


def previews_of(known: TableReader | None) -> int:
    """Return the side of the previews that a table keeps, 0 for none."""
    return 0 if known is None else known.manifest.previews


class Planner:
    """The plan of one run. `known` is the table that sources are compared with; `side` that of its previews."""

    def __init__(self, known: TableReader | None, side: int, restore: bool) -> None:
        self.known, self.side, self.restore = known, side, restore
        self._seen, self._roots = SeenIds(), Roots()
        self._folders = {root for root in (known.manifest.roots if known else ()) if root.endswith("/")}

    def close(self) -> None:
        """Remove what was kept of the run."""
        self._seen.close()

    def plan(self, sources: Iterable[Source | Unreadable]) -> Iterator[Planned]:
        """Yield what shall happen to each source, in order."""
        for chunk in batched(sources, LOOKUP):
            new = [one for one in chunk if isinstance(one, Source)]
            known, gone = known_rows(self.known, self._ids(new), self.side), self._gone(new)
            for one in chunk:
                if isinstance(one, Unreadable):
                    stage = SKIPPED if one.reason in NEEDS else "scan"
                    entry = LedgerEntry(one.uri, stage, one.reason, one.detail, one.root, item_id=one.item_id)
                    yield Failed(entry, None, one.hides, one.torn)
                else:
                    yield from self._named(one, known, gone)

    def _named(
        self, one: Source, known: Mapping[str, KnownRow], gone: Collection[tuple[str, str]]
    ) -> Iterator[Planned]:
        """Yield the plan for a source under its id; nothing if it was given twice."""
        source, row = one, known.get(one.id)
        if len(self._folders) > 1:
            source, row = named(one, known, self._seen.get, self._roots)
        if row is None and (source.root, source.id) in gone:
            yield ScannedItem.of(source)
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

    def _admit(self, source: Source, known: KnownRow | None) -> Planned | None:
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


def _with_stated(source: Source, known: KnownRow | None) -> Source:
    """Return a file of a folder with the text and metadata that somebody gave its item by id; a file states none."""
    is_file = source.root.endswith("/") and "#" not in source.uri
    if known is None or not is_file or source.metadata or source.text is not None or known.root != source.root:
        return source
    return replace(source, text=known.text, metadata=read_metadata(known.metadata))


def duplicate(item_id: str, earlier: str) -> str:
    """Say that an id belongs to the item at the uri `earlier`."""
    return f"the id {item_id!r} belongs to {display(earlier)}; give this item another id or a table of its own"
