"""Delete items with all that belongs to them, and whole token sets.

What names the rest goes last, so that after an interruption the same call finishes the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from looktwice.errors import UnknownName, UsageError
from looktwice.store import previews
from looktwice.store.lance import batched, is_in, remove
from looktwice.store.ledger import Ledger
from looktwice.store.location import Location
from looktwice.store.tokens import sample_of, size_of_file

_CHUNK, _AT_ONCE, _BATCH = 2000, 100_000, 256


@dataclass(frozen=True, slots=True)
class DroppedTokens:
    """A token set that was deleted: how it was made, its images, and the bytes of its codes, codebook and sample."""

    tokens_key: str
    mllm: str
    preprocessing: str
    codec: str
    images: int
    bytes: int


def erase_items(found: Any, items: Any, tokens: Any, kept_previews: Any | None, ledger: Ledger) -> None:
    """Delete items, an Arrow table of id, uri and root, in commits of 100,000 ids; before them what belongs to them."""
    for part in found.to_batches(_CHUNK):
        ids = part["id"].to_pylist()
        previews.drop(kept_previews, ids)
        ledger.clear_items(part.to_pylist())
        remove(tokens, is_in("id", ids))
    for some in batched(found["id"].to_pylist(), _AT_ONCE):
        remove(items, is_in("id", some))


def erase_sets(
    which: Mapping[str, str], sets: Sequence[Mapping[str, Any]], tokens: Any, ledger: Ledger, location: Location
) -> list[DroppedTokens]:
    """Delete rows and failures of those of a table's token sets that fit `which`, one commit a set; return the sets.

    A value "" fits all. Raises UsageError if all are "", UnknownName if no set fits. Codebooks and samples stay for
    those who read an older version; a purge erases them.
    """
    chosen = _chosen(sets, {name: value for name, value in which.items() if value})
    left = {entry["codebook_sha256"] for entry in sets if entry not in chosen}
    return [_erase(entry, left, tokens, ledger, location) for entry in chosen]


def _chosen(sets: Sequence[Mapping[str, Any]], named: Mapping[str, str]) -> list[Mapping[str, Any]]:
    if not named:
        raise UsageError("Name the tokens to drop: their MLLM, their codec, or the key of one set.")
    found = [entry for entry in sets if named.items() <= entry.items()]
    if not found:
        known = {f"{one['codec']} of {one['mllm']}, {one['preprocessing']} (key {one['tokens_key']})" for one in sets}
        raise UnknownName("token set", " ".join(named.values()), known)
    return found


def _erase(
    entry: Mapping[str, Any], left: set[str | None], tokens: Any, ledger: Ledger, location: Location
) -> DroppedTokens:
    key, book = str(entry["tokens_key"]), entry["codebook_sha256"]
    where = is_in("tokens_key", [key])
    images, size = _count(tokens, where)
    size += size_of_file(location, sample_of(entry))
    size += 0 if book in left else size_of_file(location, book)
    remove(tokens, where)
    ledger.clear_stage(f"tokens:{key}")
    return DroppedTokens(key, entry["mllm"], entry["preprocessing"], entry["codec"], images, size)


def _count(tokens: Any, where: str) -> tuple[int, int]:
    """Return the number of rows that match a condition, and the bytes of their codes."""
    import pyarrow.compute as pc

    images = size = 0
    for batch in tokens.search().where(where).select(["codes"]).to_batches(_BATCH):
        images += batch.num_rows
        size += pc.sum(pc.binary_length(batch["codes"])).as_py() or 0
    return images, size
