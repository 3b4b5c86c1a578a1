"""Keep a sample of a token set's images, on which the rarity of a query's tokens is measured.

The sample is drawn by a seed and stored beside the codebooks under its hash. The set's entry in the manifest names it:
{"rarity": {"sha256", "images", "tokens", "seed", "of"}}, where `of` is the number of the table's images when it was
drawn. `add_tokens` draws it again once the table has grown by half.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from looktwice.checked import demand, read_json
from looktwice.codecs import layout_from_json
from looktwice.errors import Mismatch, StoreError
from looktwice.store.tokens import drop_sample
from looktwice.token_index.images import draw_images
from looktwice.token_index.matching import Opened
from looktwice.token_index.sets import TokenSet

if TYPE_CHECKING:
    from looktwice.store import Table, TableReader, TokenRow

FORMAT = 1
IMAGES, LEAST_IMAGES, TOKENS = 64, 16, 16_384
"""The sample has this many images; fewer, but at least LEAST_IMAGES, if they have more than TOKENS tokens together."""
GROWN = 1.5
METADATA = "looktwice.rarity"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rarity:
    """A sample of images' codes, and what the manifest says of it. `stored` False: it was drawn for this run only."""

    records: Sequence[Opened]
    about: Mapping[str, Any]
    stored: bool

    def record(self) -> dict[str, Any]:
        """Return the hash and counts for a run's manifest."""
        return {**{name: self.about[name] for name in ("sha256", "images", "seed")}, "stored": self.stored}


def rarity_of(table: TableReader, kept: TokenSet) -> Rarity:
    """Return the stored sample; if it is missing, stale or damaged, draw one for this run and log a warning."""
    entry = _entry(table, kept.key)
    about = entry.get("rarity")
    images = table.count("width > 0")
    why = "are missing"
    if about is not None:
        why = "are older than most of the table"
        if not is_stale(about, images):
            try:
                return _from_bytes(table.codebook(about["sha256"]), kept, about)
            except (StoreError, Mismatch, ValueError):
                why = "are damaged"
    drawn = draw(table, kept)
    log.warning(
        "The statistics of rarity in %s %s, so they were computed for this run; store them with looktwice add-tokens.",
        table.path,
        why,
    )
    return _from_bytes(drawn[0], kept, drawn[1], stored=False)


def refresh(table: Table, kept: TokenSet) -> None:
    """Draw and store the sample, unless the table has one that is recent enough."""
    entry = _entry(table, kept.key)
    about = entry.get("rarity")
    if about is not None and not is_stale(about, table.count("width > 0")):
        return
    data, fresh = draw(table, kept)
    if not fresh["images"] or "codec" not in entry:  # another process has dropped the set meanwhile
        return
    table.put_codebook(data)
    table.note_tokens({**entry, "rarity": fresh})
    if about is not None and about.get("sha256") != fresh["sha256"]:
        drop_sample(table.location, entry)


def is_stale(about: Mapping[str, Any], images: int) -> bool:
    """Return whether a table of so many images has grown by half since its sample was drawn, or is not a sample."""
    try:
        demand(about, {"sha256": str, "images": int, "seed": int, "of": int}, "it")
    except ValueError:
        return True
    return images >= GROWN * max(1, int(about["of"])) and images > about["images"]


def draw(table: TableReader, kept: TokenSet, seed: int = 0) -> tuple[bytes, dict[str, Any]]:
    """Return a sample as bytes, and its entry for the manifest. The same table and seed give the same bytes."""
    rows: list[TokenRow] = []
    tokens = 0
    for row in _drawn_rows(table, kept, seed):
        rows.append(row)
        tokens += kept.codec.kept(layout_from_json(row.layout))
        if len(rows) == IMAGES or (tokens >= TOKENS and len(rows) >= LEAST_IMAGES):
            break
    data = _to_bytes(rows)
    about = {"sha256": hashlib.sha256(data).hexdigest(), "images": len(rows), "tokens": tokens, "seed": seed}
    return data, {**about, "of": table.count("width > 0")}


def _drawn_rows(table: TableReader, kept: TokenSet, seed: int) -> Iterator[TokenRow]:
    """Yield usable token rows of randomly drawn images."""
    ids = [entry.id for entry in draw_images(table, 16 * IMAGES, seed)]
    for start in range(0, len(ids), IMAGES):
        for row in table.read_codes(ids[start : start + IMAGES], kept.key):
            if row is None:
                continue
            try:
                kept.codec.open(row.codes, layout_from_json(row.layout))
            except (StoreError, Mismatch):
                continue
            yield row


def _to_bytes(rows: Sequence[TokenRow]) -> bytes:
    """Join layouts and codes: a line of JSON with the layouts and the lengths, then the codes."""
    about = {METADATA: FORMAT, "layouts": [row.layout for row in rows], "bytes": [len(row.codes) for row in rows]}
    return json.dumps(about).encode() + b"\n" + b"".join(row.codes for row in rows)


def _from_bytes(data: bytes, kept: TokenSet, about: Mapping[str, Any], stored: bool = True) -> Rarity:
    """Undo `_to_bytes`. Raises ValueError, StoreError or Mismatch for other bytes."""
    head, _, rest = data.partition(b"\n")
    found = read_json(head)
    demand(found, {METADATA: int, "layouts": [str], "bytes": [int]}, "it")
    records, start = [], 0
    for text, size in zip(found["layouts"], found["bytes"], strict=True):
        layout = layout_from_json(text)
        records.append((kept.codec.open(rest[start : start + size], layout), layout))
        start += size
    return Rarity(records, about, stored)


def _entry(table: TableReader, key: str) -> Mapping[str, Any]:
    """Return a set's entry as it is in the manifest now."""
    return next((entry for entry in table.manifest.tokens if entry["tokens_key"] == key), {"tokens_key": key})
