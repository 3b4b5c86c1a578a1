"""`manifest.json`: what a table was made with, and the refusal of anything else.

It is written to a file of its own, flushed to the disk and renamed, so that it is always one whole version.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import Mismatch, StoreError, UsageError
from looktwice.files import read_own, write_whole
from looktwice.types import EncoderInfo

NAME = "manifest.json"
FORMAT = 1

_COUNTS = ("rows", "partitions", "nprobes", "refine", "sample")
_TEXTS = ("tokens_key", "mllm", "revision", "preprocessing", "codec")
_KINDS = {
    "encoder": {"name": str, "revision": str, "preprocessing": str, "dim": int, "queries?": (str, None)},
    "roots": [str],
    "dtypes?": [str],
    "index": (dict, None),
    "tokens": [{**dict.fromkeys(_TEXTS, str), "codebook_sha256": (str, None), "width": int, "levels": int}],
}
_INDEX = {"kind": str, **dict.fromkeys(_COUNTS, int), "recall": float}

MOST_DIM = 2**16
MOST_BYTES = 2**26
"""Of a manifest; a million roots of 60 characters."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """`roots`: uris that were indexed. `index`: what `build_index` measured, None while search is exact. `tokens`: one
    mapping per token set, with at least its `tokens_key`. `dtypes`: what the encoder computed vectors in, most often
    one; empty where a version that did not record it made the table."""

    encoder: EncoderInfo
    roots: tuple[str, ...] = ()
    index: Mapping[str, Any] | None = None
    tokens: tuple[Mapping[str, Any], ...] = ()
    dtypes: tuple[str, ...] = ()
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Replace the manifest of a table, all or nothing. Raises as `files.write_whole` does."""
        values = {**dataclasses.asdict(self), "encoder": self.encoder.record()}
        write_whole(folder / NAME, json.dumps(values, indent=1, ensure_ascii=False).encode(), sync=True)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a table's manifest. Raises UsageError where there is none, or one of another format."""
        try:
            values = read_json(read_own(folder / NAME, MOST_BYTES))
        except FileNotFoundError:
            raise UsageError(
                f"{folder} is no looktwice table (it has no {NAME}); make one with: looktwice index"
            ) from None
        except NotADirectoryError:
            raise UsageError(f"{folder} is a file, not a looktwice table; a table is a folder.") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder / NAME} cannot be read: {error}") from error
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            raise UsageError(
                f"{folder} has on-disk format {found!r} and this looktwice reads format {FORMAT}; {_way(found)}."
            )
        return cls._from(values, folder)

    @classmethod
    def _from(cls, values: dict[str, Any], folder: Path) -> Manifest:
        try:
            demand(values, _KINDS, "it")
            if values["index"] is not None:
                demand(values["index"], _INDEX, "its index")
            encoder = EncoderInfo(**values["encoder"])
            if not 1 <= encoder.dim <= MOST_DIM:
                raise ValueError(f"its vectors have {encoder.dim} dimensions")
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{folder / NAME} is damaged ({error}); restore it from a copy, or index again."
            ) from error
        dtypes = tuple(values.get("dtypes", ()))
        return cls(encoder, tuple(values["roots"]), values["index"], tuple(values["tokens"]), dtypes)

    def check(self, encoder: EncoderInfo, folder: Path) -> None:
        """Refuse any encoder but the one whose vectors are in the table. Raises Mismatch with both names."""
        for what in ("name", "revision", "preprocessing", "dim"):
            mine, theirs = getattr(self.encoder, what), getattr(encoder, what)
            if mine != theirs:
                raise Mismatch(
                    f"{folder} was made with encoder {self.encoder.name} ({what} {mine}), not with "
                    f"{encoder.name} ({what} {theirs}); open it with the first or index into a new table."
                )


def _way(found: object) -> str:
    newer = isinstance(found, int) and found > FORMAT
    return "install a newer looktwice" if newer else "index the pictures again into a new table"
