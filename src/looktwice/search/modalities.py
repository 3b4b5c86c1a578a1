"""What is shown of queries and of candidates: pictures, words or both. Inferred from what there is, or said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from looktwice.errors import MediaError, QueryError, UnknownName
from looktwice.sources.loader import CandidateRef, LoadError
from looktwice.types import Item, has_words

KINDS = ("image", "text", "both")
NAMES = tuple(f"{query}-to-{candidate}" for query, candidate in product(KINDS, KINDS))
Shown = TypeVar("Shown", Item, CandidateRef)


@dataclass(frozen=True, slots=True)
class Direction:
    """`auto` (all there is), or for each side image, text or both: text-to-image, both-to-text, …"""

    name: str = "auto"

    @classmethod
    def parse(cls, name: str | Direction) -> Direction:
        """A direction by its name; raises UnknownName."""
        if isinstance(name, Direction):
            return name
        if name not in ("auto", *NAMES):
            raise UnknownName("direction", name, ("auto", *NAMES))
        return cls(name)

    def __str__(self) -> str:
        return self.name

    def query(self, item: Item) -> Item:
        """The query with what is to be asked of it. Raises QueryError where a part is missing."""
        if self.name == "auto":
            return item
        wanted = self.name.partition("-to-")[0]
        if (wanted != "text" and item.image is None and item.tokens is None) or (
            wanted != "image" and not has_words(item.text)
        ):
            lacks = "image" if item.image is None and item.tokens is None else "text"
            raise QueryError(f"Query {item.id!r} has no {lacks}, which --direction {self.name} requires.", item.id)
        return _only(item, wanted)

    def candidates(self, found: Sequence[CandidateRef | LoadError]) -> list[CandidateRef | LoadError]:
        """The candidates with what is to be seen of them; one that has nothing of it is LoadError, and so missing."""
        if self.name == "auto":
            return list(found)
        wanted = self.name.partition("-to-")[2]
        return [_shown(c, wanted) if isinstance(c, CandidateRef) else c for c in found]


def inferred(query: Item, candidates: Sequence[CandidateRef | LoadError]) -> str:
    """The name of what is asked with and looked at, in full."""
    shown = [c for c in candidates if isinstance(c, CandidateRef)]
    pictures, words = any(c.uri for c in shown), any(has_words(c.text) for c in shown)
    asked = _kind(query.image is not None or query.tokens is not None, has_words(query.text))
    return f"{asked}-to-{_kind(pictures, words)}"


def _kind(picture: bool, words: bool) -> str:
    return "both" if picture and words else "text" if words else "image"


def _shown(entry: CandidateRef, wanted: str) -> CandidateRef | LoadError:
    left = _only(entry, wanted)
    if left.uri is None and not has_words(left.text):
        return LoadError(entry.id, MediaError("nothing-to-show", f"{entry.id!r} has no {wanted}"))
    return left


def _only(item: Shown, wanted: str) -> Shown:
    if isinstance(item, CandidateRef):
        return item if wanted == "both" else replace(item, text=None) if wanted == "image" else replace(item, uri=None)
    if wanted == "text":
        return replace(item, image=None, tokens=None, sha256=None)
    return replace(item, text=None) if wanted == "image" else item
