"""Find the encoder whose patch tokens a table stores, for a middle look that needs no MLLM.

A set of patch tokens has the encoder's name with `patches:` before it. Only a middle look can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from looktwice.codecs import parse_codec
from looktwice.encode import load_encoder
from looktwice.encode.base import BaseEncoder
from looktwice.encode.patch_tower import PatchTower
from looktwice.encode.patches import PATCHES
from looktwice.errors import UnknownName

if TYPE_CHECKING:
    from looktwice.store import TableReader
    from looktwice.types import Encoder

AUTO = "auto"


class StoredTower:
    """The encoder that made a set of patch tokens; it is `own()` if that is the same, else loaded at first use."""

    def __init__(self, entry: Mapping[str, Any], own: Callable[[], Encoder] | None, placement: Mapping[str, Any]):
        self.codec: str = entry["codec"]
        self._name, self._revision = str(entry["mllm"]).removeprefix(PATCHES), entry["revision"]
        self.key = (self.codec, self._name, self._revision)  # towers of one key make the same tokens
        self._own, self._placement = own, placement
        self._made: PatchTower | None = None
        self._lock = Lock()

    def maker(self) -> PatchTower:
        """Return the maker of the query's tokens."""
        with self._lock:
            if self._made is None:
                self._made = PatchTower(self._shared() or self._load())
            return self._made

    def _shared(self) -> BaseEncoder | None:
        encoder = None if self._own is None else self._own()
        if not isinstance(encoder, BaseEncoder) or encoder.info.queries is not None:
            return None
        return encoder if (encoder.info.name, encoder.info.revision) == (self._name, self._revision) else None

    def _load(self) -> BaseEncoder:
        return load_encoder(self._name, revision=self._revision, **self._placement)


def stored_tower(
    table: TableReader, codec: str = AUTO, own: Callable[[], Encoder] | None = None, **placement: Any
) -> StoredTower | None:
    """Return the tower of the newest patch tokens that a middle look takes; None if it takes an MLLM's tokens.

    `codec` is `auto`, a codec, or `patches:NAME` for those of that encoder. An MLLM's tokens come first, unless patch
    tokens are named, or a probe found that they help. Raises UnknownName for patch tokens that the table does not hold.
    """
    known = table.manifest.tokens
    if codec.startswith(PATCHES):
        fitting = [entry for entry in known if entry["mllm"] == codec]
        if not fitting:
            raise UnknownName("set of patch tokens", codec, {entry["mllm"] for entry in known if is_tower(entry)})
    else:
        fitting = [entry for entry in known if codec == AUTO or entry["codec"] == str(parse_codec(codec))]
        if not fitting and all(map(is_tower, known)):
            raise UnknownName("stored codec", codec, {entry["codec"] for entry in known})
        fitting = [entry for entry in fitting if (entry.get("maxsim") or {}).get("verdict") == "helps"] or fitting
    return StoredTower(fitting[-1], own, placement) if fitting and all(map(is_tower, fitting)) else None


def is_tower(entry: Mapping[str, Any]) -> bool:
    """Return whether a set holds an encoder's patch tokens."""
    return str(entry["mllm"]).startswith(PATCHES)
