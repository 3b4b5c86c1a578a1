"""Index a part of what a scan meets: the items that pass a filter, before their images are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from looktwice.sources import Scan, Source
from looktwice.store import Where
from looktwice.store.passing import passing
from looktwice.store.schema import column_values

_OWN: dict[str, type] = {"id": str, "uri": str, "root": str, "text": str}


def matching(found: Scan, where: Where, columns: Mapping[str, type]) -> Scan:
    """Return a scan that meets only the items of `found` that pass a filter; nothing can be pruned by it.

    The filter may name id, uri, root, text, and the metadata keys in `columns`. A key that an item lacks, or whose
    value has another type, is null. Raises UsageError for an invalid filter, UnknownName for an unknown column.
    """
    names = {**_OWN, **columns}
    passing([], where, names)
    return replace(found, scopes=(), passing=partial(_passing, where=where, columns=columns, names=names))


def _passing(items: Sequence[Source], where: Where, columns: Mapping[str, type], names: Mapping[str, type]) -> set[int]:
    own = [{name: getattr(item, name) for name in _OWN} for item in items]
    return passing(
        [{**row, **column_values(item.metadata, columns)} for row, item in zip(own, items, strict=True)], where, names
    )
