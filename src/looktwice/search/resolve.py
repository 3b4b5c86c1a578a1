"""Find candidates and their images by id, in a table or in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources import Source, Urls, scan
from looktwice.sources.loader import CandidateRef, LoadError, Resolver

if TYPE_CHECKING:
    from looktwice.store import TableReader


UNKNOWN = "unknown-id"
"""Reason of an id that the collection does not have."""


def in_table(table: TableReader, urls: Urls = "refused") -> Resolver:
    """Return a resolver of the rows of a table."""

    def find(ids: Sequence[str]) -> list[CandidateRef | LoadError]:
        rows = {row["id"]: row for row in table.lookup(ids, ["id", "uri", "sha256", "width", "text"])}
        return [_entry(table, rows[name], urls) if name in rows else _absent(name, "the table") for name in ids]

    return find


def in_folder(folder: str | Path, urls: Urls = "refused") -> Resolver:
    """Return a resolver of the files of a folder (or list, or archive), by the ids that indexing it would give."""
    there = {
        source.id: CandidateRef(source.id, source.uri if source.has_image else None, None, source.text, urls)
        for source in scan([folder])
        if isinstance(source, Source)
    }
    return lambda ids: [there[name] if name in there else _absent(name, str(folder)) for name in ids]


def _entry(table: TableReader, row: Mapping[str, Any], urls: Urls) -> CandidateRef:
    uri, preview = (row["uri"], partial(table.preview, row["id"], row["sha256"])) if row["width"] else (None, None)
    return CandidateRef(row["id"], uri, row["sha256"], row["text"], urls, preview)


def _absent(name: str, where: str) -> LoadError:
    return LoadError(name, MediaError(UNKNOWN, f"{where} has no item called {name!r}"))
