"""Read and write `manifest.json`, which records how a table was made, and refuse other encoders.

It is written to a draft file, flushed to the disk and renamed, so that it is always one whole version.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import Damaged, Mismatch, StoreError, UsageError
from looktwice.sources.reading import NEWEST, OLDEST
from looktwice.store.location import Location
from looktwice.types import EncoderInfo

NAME = "manifest.json"
FORMAT = 2
READABLE = (1, 2)
"""Formats that can be opened; an older one is migrated at the next write to the table."""

NEEDS = "0.1.0"
"""The first version of looktwice that reads FORMAT; an older one names it when it refuses the table."""

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,30}")

_COUNTS = ("rows", "partitions", "nprobes", "refine", "sample")
_TEXTS = ("tokens_key", "mllm", "revision", "preprocessing", "codec")
_KINDS = {
    "encoder": {"name": str, "revision": str, "preprocessing": str, "dim": int, "queries?": (str, None)},
    "roots": [str],
    "dtypes?": [str],
    "previews?": int,
    "reading?": int,
    "index": (dict, None),
    "tokens": [
        {
            **dict.fromkeys(_TEXTS, str),
            **dict.fromkeys(("width", "levels"), int),
            "codebook_sha256": (str, None),
            "rarity?": dict,
        }
    ],
}
_INDEX = {"kind": str, **dict.fromkeys(_COUNTS, int), "recall": float, "nearest?": float}

MOST_DIM = 2**16
LEAST_SIDE, MOST_SIDE = 16, 4096
"""Limits of the side of previews in pixels."""

MOST_BYTES = 2**26
"""Largest manifest: a million roots of 60 characters."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a manifest.

    `roots`: the indexed uris. `index`: the measurements of `build_index`, None while search is exact. `tokens`: one
    mapping per token set, with at least its `tokens_key`. `dtypes`: the dtypes that the encoder computed in, usually
    one; empty for tables of versions that did not record it. `format`: the on-disk format, which may be an older one
    until the next write. `reading`: the version of the rules by which images become pixels, see `sources.reading`.
    `previews`: the longest side of the previews in pixels, 0 for none; only written if it is set.
    """

    encoder: EncoderInfo
    roots: tuple[str, ...] = ()
    index: Mapping[str, Any] | None = None
    tokens: tuple[Mapping[str, Any], ...] = ()
    dtypes: tuple[str, ...] = ()
    format: int = FORMAT
    reading: int = NEWEST
    previews: int = 0

    def create(self, location: Location) -> bool:
        """Write the manifest of a new table. Return False if another process has just written one."""
        return location.create(NAME, self._bytes())

    @classmethod
    def update(cls, location: Location, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Replace the manifest by what `change` makes of it; return the new one. Raises like `files.write_whole`."""
        made: list[Manifest] = []  # one for each try

        def changed(data: bytes) -> bytes:
            before = cls._parse(data, location)
            made.append(change(before))
            return data if made[-1] == before else made[-1]._bytes()

        location.update(NAME, MOST_BYTES, changed)
        return made[-1]

    def _bytes(self) -> bytes:
        values = {**dataclasses.asdict(self), "encoder": self.encoder.record(), "needs": NEEDS}
        if not self.previews:
            del values["previews"]
        return json.dumps(values, indent=1, ensure_ascii=False).encode()

    def with_tokens(self, entry: Mapping[str, Any]) -> Manifest:
        """Return a manifest with this token set, which replaces one of the same key."""
        others = [known for known in self.tokens if known["tokens_key"] != entry["tokens_key"]]
        return dataclasses.replace(self, tokens=(*others, dict(entry)))

    def without_tokens(self, keys: Collection[str]) -> Manifest:
        """Return a manifest without the token sets of these keys."""
        return dataclasses.replace(self, tokens=tuple(one for one in self.tokens if one["tokens_key"] not in keys))

    def with_run(self, roots: Sequence[str], dtypes: Sequence[str]) -> Manifest:
        """Return a manifest with these roots and dtypes, too."""
        both = dict.fromkeys((*self.roots, *roots)), dict.fromkeys((*self.dtypes, *dtypes))
        return dataclasses.replace(self, roots=tuple(both[0]), dtypes=tuple(both[1]))

    @classmethod
    def read(cls, location: Location) -> Manifest:
        """Read a table's manifest. Raises UsageError if it is missing, too old or too new, Damaged otherwise."""
        try:
            data = location.read_bytes(NAME, MOST_BYTES)
        except FileNotFoundError:
            raise UsageError(
                f"{location} is not a looktwice table (it has no {NAME}); create one with: looktwice index"
            ) from None
        except NotADirectoryError:
            raise UsageError(f"{location} is a file, but a looktwice table is a folder; pass the folder.") from None
        except OSError as error:
            raise StoreError(f"{location}/{NAME} cannot be read ({error}); restore it from a copy.") from error
        return cls._parse(data, location)

    @classmethod
    def _parse(cls, data: bytes, location: Location) -> Manifest:
        try:
            values = read_json(data)
        except ValueError as error:
            raise Damaged(f"{location}/{NAME} cannot be read ({error}); restore it from a copy.") from error
        found = values.get("format") if isinstance(values, dict) else None
        if type(found) is not int or found not in READABLE:
            read = " and ".join(map(str, READABLE))
            raise UsageError(
                f"{location} has on-disk format {found!r}, but this looktwice reads formats {read}; {_way(values)}."
            )
        return cls._from(values, location)

    @classmethod
    def _from(cls, values: dict[str, Any], place: object) -> Manifest:
        try:
            demand(values, _KINDS, "it")
            if values["index"] is not None:
                demand(values["index"], _INDEX, "its index")
            encoder = EncoderInfo(**values["encoder"])
            if not 1 <= encoder.dim <= MOST_DIM:
                raise ValueError(f"its vectors have {encoder.dim} dimensions")
        except (ValueError, TypeError) as error:
            raise Damaged(f"{place}/{NAME} is damaged ({error}); restore it from a copy, or index again.") from error
        reading = values.get("reading", OLDEST)  # tables of versions that had one way to read images
        if not OLDEST <= reading <= NEWEST:
            raise UsageError(f"The images of {place} were read by rules {reading}; install a newer looktwice.")
        dtypes, sets = tuple(values.get("dtypes", ())), tuple(values["tokens"])
        side = max(0, min(values.get("previews", 0), MOST_SIDE))
        return cls(encoder, tuple(values["roots"]), values["index"], sets, dtypes, values["format"], reading, side)

    def check(self, encoder: EncoderInfo, place: object) -> None:
        """Raise Mismatch, with both names, unless `encoder` is the one whose vectors are in the table."""
        for what in ("name", "revision", "preprocessing", "dim"):
            mine, theirs = getattr(self.encoder, what), getattr(encoder, what)
            if mine != theirs:
                raise Mismatch(
                    f"{place} was made with encoder {self.encoder.name} ({what} {mine}), not with "
                    f"{encoder.name} ({what} {theirs}); use the first encoder or index into a new table."
                )


def check_side(side: int) -> None:
    """Raise UsageError for a side that no preview has."""
    if side and not LEAST_SIDE <= side <= MOST_SIDE:
        raise UsageError(f"A preview has {LEAST_SIDE} to {MOST_SIDE:,} pixels a side, or 0 for none, not {side}.")


def _way(values: object) -> str:
    found = values.get("format") if isinstance(values, dict) else None
    if not isinstance(found, int) or found <= FORMAT:
        return "index the images again into a new table"
    needs = str(values.get("needs")) if isinstance(values, dict) else ""
    return f"install looktwice {needs} or newer" if _VERSION.fullmatch(needs) else "install a newer looktwice"
