"""Choose the parts of queries and candidates to show: images, texts or both; inferred, or set by --direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from looktwice.errors import MediaError, QueryError, UnknownName
from looktwice.search.examples import StoredItem
from looktwice.sources.loader import CandidateRef, LoadError
from looktwice.types import Item, has_words

KINDS = ("image", "text", "both")
NAMES = tuple(f"{query}-to-{candidate}" for query, candidate in product(KINDS, KINDS))
Shown = TypeVar("Shown", Item, CandidateRef)


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction: `auto` (all parts), or image, text or both for each side: text-to-image, both-to-text, …"""

    name: str = "auto"

    @classmethod
    def parse(cls, name: str | Direction) -> Direction:
        """Return a direction by its name. Raises UnknownName."""
        if isinstance(name, Direction):
            return name
        if name not in ("auto", *NAMES):
            raise UnknownName("direction", name, ("auto", *NAMES))
        return cls(name)

    def __str__(self) -> str:
        return self.name

    def query(self, item: Item) -> Item:
        """Return the query with the parts of this direction. Raises QueryError if one is missing."""
        if self.name == "auto":
            return item
        wanted = self.name.partition("-to-")[0]
        if (wanted != "text" and item.image is None and item.tokens is None) or (
            wanted != "image" and not has_words(item.text)
        ):
            lacks = "image" if item.image is None and item.tokens is None else "text"
            raise QueryError(
                f"Query {item.id!r} has no {lacks}, which the direction {self.name} requires; add it, or use "
                "--direction auto.",
                item.id,
            )
        return _only(item, wanted)

    @property
    def demands_image(self) -> bool:
        """Return whether every query must have an image."""
        return self.name.startswith(("image-", "both-"))

    def candidates(self, found: Sequence[CandidateRef | LoadError]) -> list[CandidateRef | LoadError]:
        """Return the candidates with the parts of this direction. One without them becomes a LoadError ("missing")."""
        if self.name == "auto":
            return list(found)
        wanted = self.name.partition("-to-")[2]
        return [_shown(c, wanted) if isinstance(c, CandidateRef) else c for c in found]


def inferred(query: Item, candidates: Sequence[CandidateRef | LoadError]) -> str:
    """Return the full name of the direction that query and candidates have."""
    shown = [c for c in candidates if isinstance(c, CandidateRef)]
    images, texts = any(c.uri for c in shown), any(has_words(c.text) for c in shown)
    asked = _kind(query.image is not None or query.tokens is not None, has_words(query.text))
    return f"{asked}-to-{_kind(images, texts)}"


def _kind(image: bool, text: bool) -> str:
    return "both" if image and text else "text" if text else "image"


def _shown(entry: CandidateRef, wanted: str) -> CandidateRef | LoadError:
    left = _only(entry, wanted)
    if left.uri is None and not has_words(left.text):
        return LoadError(entry.id, MediaError("nothing-to-show", f"{entry.id!r} has no {wanted}"))
    return left


def _only(item: Shown, wanted: str) -> Shown:
    if isinstance(item, CandidateRef):
        return item if wanted == "both" else replace(item, text=None) if wanted == "image" else replace(item, uri=None)
    if wanted == "both":
        return item
    drops = has_words(item.text) if wanted == "image" else item.uri is not None or item.image is not None
    left = replace(item, text=None) if wanted == "image" else replace(item, image=None, tokens=None, sha256=None)
    # a stored vector was made of all parts, so what is left is encoded anew
    return replace(left, vector=None) if isinstance(left, StoredItem) and drops else left
