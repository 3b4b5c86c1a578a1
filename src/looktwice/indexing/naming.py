"""Keep the items of two folders apart whose files have the same names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from looktwice.indexing.reading import KnownRow
from looktwice.indexing.seen import Roots
from looktwice.sources import Source, name_to_id, parse_uri


def apart(source: Source) -> Source:
    """Return a folder's item under an id that names its folder: the folder's name, `~` and a hash of its uri."""
    name = name_to_id(os.path.basename(parse_uri(source.root).path.rstrip(b"/")))
    digest = hashlib.blake2b(source.root.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
    return replace(source, id=f"{name}~{digest}/{source.id}")


def named(
    source: Source, known: Mapping[str, KnownRow], earlier: Callable[[str], str | None], roots: Roots
) -> tuple[Source, KnownRow | None]:
    """Return a source under the id that it has or gets in the table, with its row.

    A file keeps its name as its id unless another folder that still exists has brought that id, to the table or earlier
    in this run. An item that once got another id keeps it. `earlier` returns the uri that an id was met with.
    """
    own = known.get(source.id)
    if not source.root.endswith("/"):
        return source, own
    other = apart(source)
    found = known.get(other.id)
    if found is not None and found.root == source.root:
        return other, found
    met = earlier(source.id)
    if (own is not None and _keeps(own, source, roots)) or (met is not None and not met.startswith(source.root)):
        return other, found
    return source, own


def _keeps(own: KnownRow, source: Source, roots: Roots) -> bool:
    """Return whether a row of another folder keeps its id; the same file under another root is no second item."""
    return own.root.endswith("/") and own.uri != source.uri and roots.keep(own.root, source.root)
