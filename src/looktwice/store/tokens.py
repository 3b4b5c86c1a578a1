"""Store compressed visual tokens beside the items: one row per item and token set, read in the requested order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from looktwice.errors import Damaged, UsageError
from looktwice.store.lance import batched, is_in, plain_errors, remove, upsert
from looktwice.store.location import Location
from looktwice.store.schema import TokenRow, tokens_schema

CODEBOOKS = "codebooks"

MOST_CODEBOOK_BYTES = 2**30
"""Largest codebook: it holds rotations and centres of four levels of opq for tokens of width 8,192."""

_HASH = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("id", "sha256", "tokens_key", "layout", "codes", "levels")


def put_codes(table: Any, place: object, rows: Sequence[TokenRow]) -> None:
    """Write token rows in one commit; they replace those of the same item and token set."""
    import pyarrow as pa

    if not rows:
        return
    if odd := [row.tokens_key for row in rows if "|" in row.tokens_key]:
        raise UsageError(f"The tokens key {odd[0]!r} contains '|', which separates id and key; leave it out.")
    data = [{"key": _key(row.id, row.tokens_key), **{name: getattr(row, name) for name in _FIELDS}} for row in rows]
    with plain_errors(place, "writing tokens"):
        upsert(table, "key", pa.Table.from_pylist(data, schema=tokens_schema()))


def read_codes(table: Any, place: object, ids: Sequence[str], tokens_key: str) -> list[TokenRow | None]:
    """Return one row per id, in the order of `ids`; None for an item without tokens of this set."""
    found: dict[str, TokenRow] = {}
    with plain_errors(place, "reading tokens"):
        for part in batched(dict.fromkeys(ids), 2000):
            where = is_in("key", [_key(id_, tokens_key) for id_ in part])
            rows = table.search().where(where).select(list(_FIELDS)).to_arrow().to_pylist()
            found.update({row["id"]: TokenRow(**row) for row in rows})
    return [found.get(id_) for id_ in ids]


def pending(items: Any, tokens: Any, place: object, tokens_key: str) -> Iterator[list[str]]:
    """Yield, in batches, the ids of images whose tokens of this set are missing or older than the image."""
    with plain_errors(place, "comparing items and tokens"):
        for batch in items.search().where("width > 0").select(["id", "sha256"]).to_batches(2000):
            wanted = dict(zip(batch["id"].to_pylist(), batch["sha256"].to_pylist(), strict=True))
            where = is_in("key", [_key(id_, tokens_key) for id_ in wanted])
            have = tokens.search().where(where).select(["id", "sha256"]).to_arrow().to_pylist()
            done = {row["id"] for row in have if wanted[row["id"]] == row["sha256"]}
            if left := [id_ for id_ in wanted if id_ not in done]:
                yield left


def drop_stale(tokens: Any, fresh: dict[str, str]) -> None:
    """Delete the tokens of items (id -> sha256) whose bytes have changed."""
    if tokens.count_rows() == 0:
        return
    for part in batched(fresh, 2000):
        rows = tokens.search().where(is_in("id", part)).select(["key", "id", "sha256"]).to_arrow().to_pylist()
        if stale := [row["key"] for row in rows if row["sha256"] != fresh[row["id"]]]:
            remove(tokens, is_in("key", stale))


def put_codebook(location: Location, data: bytes) -> str:
    """Store a codebook under its hash and return the hash (hex SHA-256)."""
    name = hashlib.sha256(data).hexdigest()
    with plain_errors(location, "writing a codebook"):
        location.write_whole(f"{CODEBOOKS}/{name}", data)
    return name


def only_codebooks(location: Location, sets: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Delete what is kept beside the codebooks of these token sets; return the entries.

    A rarity sample holds codes of rows that may be deleted, and other codebooks are of sets that were dropped.
    """
    named = {entry["codebook_sha256"] for entry in sets}
    with plain_errors(location, "deleting a sample"):
        for name in location.list(CODEBOOKS):
            if _HASH.fullmatch(name) and name not in named:
                location.delete(f"{CODEBOOKS}/{name}")
    return tuple({name: value for name, value in entry.items() if name != "rarity"} for entry in sets)


def size_of_file(location: Location, sha256: object) -> int:
    """Return the bytes of a codebook or a sample, 0 if there is none."""
    return location.size(f"{CODEBOOKS}/{sha256}") if _HASH.fullmatch(str(sha256)) else 0


def sample_of(entry: Mapping[str, Any]) -> str:
    """Return the hash of the rarity sample that a token set's entry names, "" if it names none."""
    return str((entry.get("rarity") or {}).get("sha256", ""))


def drop_sample(location: Location, entry: Mapping[str, Any]) -> None:
    """Delete the rarity sample that a token set's entry names."""
    if _HASH.fullmatch(sha256 := sample_of(entry)):
        location.delete(f"{CODEBOOKS}/{sha256}")


def read_codebook(location: Location, sha256: str) -> bytes:
    """Return a stored codebook. Raises StoreError if it is missing or damaged."""
    if not _HASH.fullmatch(sha256):  # a stranger's manifest may name any file
        raise Damaged(f"{location} names a codebook {sha256[:80]!r}, which is not a SHA-256; make the tokens again.")
    with plain_errors(location, "reading a codebook"):
        try:
            data = location.read_bytes(f"{CODEBOOKS}/{sha256}", MOST_CODEBOOK_BYTES)
        except FileNotFoundError:
            raise Damaged(f"{location} has lost its codebook {sha256[:12]}; make the tokens again.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"The codebook {sha256[:12]} of {location} is damaged; make the tokens again.")
    return data


def _key(item_id: str, tokens_key: str) -> str:
    return f"{item_id}|{tokens_key}"
