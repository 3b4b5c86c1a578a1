"""Find the token sets of a table, by the model, preprocessing, codec and codebook they were made with.

A set's key is a hash of exactly these, so that several live side by side and none is taken for another. This module
joins `codecs`, `store` (the table's manifest) and a scorer's settings; it knows no images.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from looktwice.codecs import Codebook, Codec, codebook_from_bytes, parse_codec
from looktwice.codecs.pq import PQ
from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.score import Scorer, TokenMaker
from looktwice.store import TableGroup
from looktwice.token_index.crops import has_crops
from looktwice.token_index.tower import is_tower
from looktwice.types import TokensInfo

if TYPE_CHECKING:
    from looktwice.store import TableReader

log = logging.getLogger(__name__)

_READ: WeakKeyDictionary[TableReader, dict[str, Codebook]] = WeakKeyDictionary()
_READING = Lock()


@dataclass(frozen=True, slots=True)
class TokenSet:
    """One set of a table: its key, the codec ready to decode, and its entry in the manifest."""

    key: str
    codec: Codec
    entry: Mapping[str, Any]


def make_set(info: TokensInfo, codec: Codec, about: Mapping[str, Any]) -> TokenSet:
    """Name the set that `codec`, with its codebook if it needs one, makes of this model's tokens.

    `about` goes into the manifest beside the key's own facts: how the codebook was trained, for instance.
    """
    identity = {
        "mllm": info.mllm,
        "revision": info.revision,
        "preprocessing": info.preprocessing,
        "codec": str(codec),
        "codebook_sha256": codec.codebook.sha256 if codec.codebook else None,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    shapes = {"width": info.width, "levels": info.levels, "resampler": info.resampler}
    return TokenSet(key, codec, {"tokens_key": key, **identity, **shapes, **about})


def demand_tokens(scorer: object) -> TokenMaker:
    """Return a maker of visual tokens as it is, or a scorer's. Raises UsageError if it has none."""
    maker = scorer if isinstance(scorer, TokenMaker) else Scorer.of(scorer).tokens()
    if maker is None:
        raise UsageError(
            "This scorer gives no visual tokens, nor does any model on the reference path; choose one with a fast path."
        )
    return maker


def matching(table: TableReader, info: TokensInfo, codec: str | None = None) -> list[Mapping[str, Any]]:
    """Return the table's sets that this model made (with this codec), oldest first."""
    mine = {"mllm": info.mllm, "revision": info.revision, "preprocessing": info.preprocessing}
    if codec is not None:
        mine["codec"] = codec
    return [entry for entry in table.manifest.tokens if mine.items() <= entry.items()]


def usable(table: TableReader, scorer: object) -> list[Mapping[str, Any]]:
    """Return the table's token sets of this scorer's model; log a warning if it has only those of others."""
    maker = Scorer.of(scorer).tokens()
    if maker is None:
        return []
    info = maker.tokens_info()
    found = [entry for entry in matching(table, info) if not is_late(entry)]
    others = [entry for entry in table.manifest.tokens if not _for_middle_look(entry)]
    if others and not found:
        log.warning("The second look reads images instead of stored tokens. %s", _no_set(table, info))
    return found


def open_set(table: TableReader, info: TokensInfo, codec: str | None = None, option: str = "--codec") -> TokenSet:
    """Open the set of `table` that fits this model: the only one, or the latest one of the codec named.

    `option` is the option that names the codec.
    Raises UsageError if the table has no set or several codecs, Mismatch if all sets are another model's, UnknownName
    for a codec that the table does not have, StoreError for a damaged or missing codebook.
    """
    found = matching(table, info)
    name = stored_codec(table, info, option) if codec is None else str(parse_codec(codec))
    if name is None or not found:
        raise _no_set(table, info)
    named = [entry for entry in found if entry["codec"] == name]
    if not named:
        advice = f"To store it: looktwice add-tokens {table.path} --codec {name}"
        raise UnknownName("stored codec", name, {entry["codec"] for entry in found}, advice)
    return load_set(table, info, named[-1])


def stored_codec(table: TableReader, info: TokensInfo, option: str = "--codec") -> str | None:
    """Return the codec of this model's tokens in the table, None without any.

    Raises UsageError for several codecs, with the `option` that names one.
    """
    names = sorted({str(entry["codec"]) for entry in matching(table, info)})
    if len(names) > 1:
        some = ", ".join(names)
        raise UsageError(f"{table.path} holds visual tokens in several codecs; choose one with {option}: {some}.")
    return names[0] if names else None


def load_set(table: TableReader, info: TokensInfo, entry: Mapping[str, Any]) -> TokenSet:
    """Make a set's codec ready to decode, with the codebook from the table."""
    codec = parse_codec(entry["codec"])
    if entry["codebook_sha256"] is not None:
        codec = codec.with_codebook(_codebook(table, entry["codebook_sha256"]))
    if codec.codebook is not None and (codec.codebook.dim, codec.codebook.streams - 1) != (info.width, info.levels):
        raise Mismatch(
            f"The codebook in {table.path} is for tokens of width {codec.codebook.dim} with "
            f"{codec.codebook.streams - 1} levels, but {info.mllm} has {info.width} with {info.levels}; "
            "run looktwice add-tokens again."
        )
    return TokenSet(entry["tokens_key"], codec, entry)


def _codebook(table: TableReader, sha256: str) -> Codebook:
    """Return a codebook of a table. It is read once: both looks and all prompts share it."""
    with _READING:
        known = _READ.setdefault(table, {})
        if sha256 not in known:
            known[sha256] = codebook_from_bytes(table.codebook(sha256), f"A codebook of {table.path}")
        return known[sha256]


def lacking(table: TableReader) -> tuple[str, str]:
    """Return a verb for a table without tokens, or for a group that shares none, and the command that stores some.

    A group needs sets of one key in all tables. A codec with a codebook makes others in each, so int8 is named.
    """
    if isinstance(table, TableGroup):
        return "share no", "looktwice add-tokens TABLE --codec int8, for each table"
    return "stores no", f"looktwice add-tokens {table.path}"


def shown_codecs(table: TableReader) -> set[str]:
    """Return the codecs of the sets that a second look can be shown."""
    return {str(entry["codec"]) for entry in table.manifest.tokens if not _for_middle_look(entry)}


def _for_middle_look(entry: Mapping[str, Any]) -> bool:
    """Return whether only a middle look uses a set: one of crops, of an encoder's patches, or of a late codec."""
    return has_crops(entry) or is_tower(entry) or is_late(entry)


def is_late(entry: Mapping[str, Any]) -> bool:
    """Return whether a set keeps only principal dimensions, which is enough for a middle look alone."""
    quantiser = parse_codec(entry["codec"]).quantiser
    return isinstance(quantiser, PQ) and quantiser.late is not None


def _no_set(table: TableReader, info: TokensInfo) -> UsageError:
    known = [f"{e['mllm']} (revision {e['revision']}, {e['preprocessing']})" for e in table.manifest.tokens]
    advice = f"run looktwice add-tokens {table.path} --mllm {info.mllm}"
    if not known:
        return UsageError(f"{table.path} holds no visual tokens; {advice}, or use --codec images.")
    what = f"{table.path} holds visual tokens of {'; '.join(dict.fromkeys(known))}"
    if all(map(_for_middle_look, table.manifest.tokens)):
        return Mismatch(f"{what}, which only a middle look uses; {advice}, or use --codec images.")
    return Mismatch(f"{what}, not of {info.mllm} (revision {info.revision}, {info.preprocessing}); {advice}.")
