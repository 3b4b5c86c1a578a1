"""Turn images of a table into visual tokens and bytes, as filling a table and comparing codecs need.

An image that cannot be read or used gives its reason; it never stops the others and never shifts them.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from looktwice.codecs import Codec, layout_to_json
from looktwice.codecs.training import MOST_TOKENS
from looktwice.errors import LooktwiceError, MediaError, ModelError, UsageError
from looktwice.score import TokenMaker
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError
from looktwice.sources.uri import MEMORY
from looktwice.types import Item, VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.sources import Urls
    from looktwice.store import TableReader

SAMPLE_IMAGES = 1024


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run. `stage` "sample": tokens for the codebook; "train": the codebook; "encode": images."""

    stage: Literal["sample", "train", "encode"]
    done: int
    total: int
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image's tokens as bytes, with the layout they were encoded from."""

    layout: str
    codes: bytes
    levels: int


Made: TypeAlias = tuple[CandidateRef, Encoded | LooktwiceError]
"""An image with its tokens as bytes, or the error that prevented them."""


def encode_images(scorer: TokenMaker, codec: Codec, entries: Sequence[CandidateRef]) -> Iterator[Made]:
    """Yield every entry, in order, with its tokens as bytes or the error that prevented them."""
    for entry, tokens in look_at(scorer, entries):
        if isinstance(tokens, LooktwiceError):
            yield entry, tokens
            continue
        try:
            codes = codec.encode(tokens)
        except (MediaError, ModelError) as error:
            yield entry, error
            continue
        levels = 0 if tokens.levels is None else len(tokens.levels)
        yield entry, Encoded(layout_to_json(tokens.layout), codes, levels)


def look_at(
    scorer: TokenMaker, entries: Sequence[CandidateRef]
) -> Iterator[tuple[CandidateRef, VisualTokens | LooktwiceError]]:
    """Yield every entry, in order, with the vision tower's tokens for it or the error that prevented them."""
    chunks = ImageLoader(cache_bytes=0).load(entries)
    start = 0
    for found in chunks:
        part = entries[start : start + len(found)]
        start += len(found)
        images = [item for item in found if isinstance(item, Item)]
        seen = iter(_tokens(scorer, images))
        for entry, item in zip(part, found, strict=True):
            yield entry, item.why if isinstance(item, LoadError) else next(seen)


def _tokens(scorer: TokenMaker, items: Sequence[Item]) -> Sequence[VisualTokens | LooktwiceError]:
    """Return the tokens of all; after an error, try each image alone, so that only the bad one fails."""
    try:
        return scorer.visual_tokens(items) if items else []
    except (MediaError, ModelError) as error:
        if len(items) == 1:
            return [error]
        return [tokens for item in items for tokens in _tokens(scorer, [item])]


def draw_images(
    table: TableReader, count: int, seed: int, leave_out: Sequence[str] = (), urls: Urls = "refused"
) -> list[CandidateRef]:
    """Draw `count` images of a table; the same seed draws the same ones, in any order of the rows."""

    def lot(row: dict[str, Any]) -> bytes:
        return hashlib.sha256(f"{seed} {row['id']}".encode()).digest()

    known = set(leave_out)
    rows = (row for row in table.rows(["id", "uri", "sha256"], where="width > 0") if row["id"] not in known)
    drawn = heapq.nsmallest(count, rows, key=lot)
    return [image_ref(table, row, urls) for row in drawn]


def image_ref(table: TableReader, row: Mapping[str, Any], urls: Urls) -> CandidateRef:
    """Return the place of an item's image; of one that only lived in memory the table's preview is all there is."""
    kept = partial(table.preview, row["id"], row["sha256"]) if row["uri"].startswith(MEMORY) else None
    return CandidateRef(row["id"], row["uri"], row["sha256"], urls=urls, preview=kept)


def image_refs(table: TableReader, ids: Sequence[str], urls: Urls) -> list[CandidateRef]:
    """Return the images of those of `ids` that exist, in order."""
    found = {row["id"]: row for row in table.lookup(ids, ["id", "uri", "sha256"])}
    return [image_ref(table, found[id_], urls) for id_ in ids if id_ in found]


def sample_tokens(
    table: TableReader,
    scorer: TokenMaker,
    codec: Codec,
    count: int,
    seed: int,
    progress: Callable[[Progress], None] = lambda _: None,
    leave_out: Sequence[str] = (),
    urls: Urls = "refused",
) -> Tensor:
    """Return up to `count` stored vectors [S, n, d] (after the codec's cells and groups) of randomly drawn images.

    Each image gives equally many, so that at least SAMPLE_IMAGES are seen if the table has so many. Raises UsageError
    if no image gives any.
    """
    import torch

    if not 1 <= count <= MOST_TOKENS:
        raise UsageError(f"A codebook needs 1 to {MOST_TOKENS:,} tokens to train on, not {count:,}.")
    entries = draw_images(table, 4 * SAMPLE_IMAGES, seed, leave_out, urls)
    each = math.ceil(count / max(1, min(len(entries), SAMPLE_IMAGES)))
    generator = torch.Generator().manual_seed(seed)
    parts: list[Tensor] = []
    have, begun = 0, time.monotonic()
    why = ""
    for _, tokens in look_at(scorer, entries):
        why = why or (str(tokens) if isinstance(tokens, LooktwiceError) else "")
        try:
            values = None if isinstance(tokens, LooktwiceError) else codec.reduce(tokens).values
        except MediaError:
            values = None  # encoding reports such an image when its turn comes
        if values is not None:
            chosen = torch.randperm(values.shape[1], generator=generator)[: min(each, count - have)]
            parts.append(values[:, chosen.to(values.device)].cpu())
            have += len(chosen)
            progress(Progress("sample", have, count, seconds=time.monotonic() - begun))
        if have >= count:
            break
    if not parts:
        raise UsageError(
            f"{table.path} has no image to train a codebook on{f' ({why})' if why else ''}; index images first, or "
            "load a codebook."
        )
    return torch.cat(parts, dim=1)
