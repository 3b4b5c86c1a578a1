"""What is shown of queries and of candidates: pictures, words or both. Inferred from what there is, or said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from looktwice.errors import MediaError, UnknownName, UsageError
from looktwice.sources.loader import Entry, Unreadable
from looktwice.types import Item, has_words

KINDS = ("image", "text", "both")
NAMES = tuple(f"{query}-to-{candidate}" for query, candidate in product(KINDS, KINDS))
Shown = TypeVar("Shown", Item, Entry)


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
        """The query with what is to be asked of it. Raises UsageError where nothing is left, or a part is missing."""
        if self.name == "auto":
            return item
        wanted = self.name.partition("-to-")[0]
        if (wanted != "text" and item.image is None and item.tokens is None) or (
            wanted != "image" and not has_words(item.text)
        ):
            raise UsageError(f"The query {item.id!r} has not what the direction {self.name} asks with: {wanted}.")
        return _only(item, wanted)

    def candidates(self, found: Sequence[Entry | Unreadable]) -> list[Entry | Unreadable]:
        """The candidates with what is to be seen of them; one that has nothing of it is Unreadable, and so missing."""
        if self.name == "auto":
            return list(found)
        wanted = self.name.partition("-to-")[2]
        return [_shown(c, wanted) if isinstance(c, Entry) else c for c in found]


def inferred(query: Item, candidates: Sequence[Entry | Unreadable]) -> str:
    """The name of what is asked with and looked at, in full."""
    shown = [c for c in candidates if isinstance(c, Entry)]
    pictures, words = any(c.uri for c in shown), any(has_words(c.text) for c in shown)
    asked = _kind(query.image is not None or query.tokens is not None, has_words(query.text))
    return f"{asked}-to-{_kind(pictures, words)}"


def _kind(picture: bool, words: bool) -> str:
    return "both" if picture and words else "text" if words else "image"


def _shown(entry: Entry, wanted: str) -> Entry | Unreadable:
    left = _only(entry, wanted)
    if left.uri is None and not has_words(left.text):
        return Unreadable(entry.id, MediaError("nothing-to-show", f"{entry.id!r} has no {wanted}"))
    return left


def _only(item: Shown, wanted: str) -> Shown:
    if isinstance(item, Entry):
        return item if wanted == "both" else replace(item, text=None) if wanted == "image" else replace(item, uri=None)
    if wanted == "text":
        return replace(item, image=None, tokens=None, sha256=None)
    return replace(item, text=None) if wanted == "image" else item
