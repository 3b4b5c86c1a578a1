"""Describe a prompt as a record: how the model sees a pair, and which answers are read.

A prompt is a row of segments (literal text, and the parts of the pair) and a set of labels with values. This module
knows neither models nor tokenizers nor the wording of any prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, TypeAlias, cast, get_args

from looktwice.errors import UsageError
from looktwice.types import Item, has_words

Part: TypeAlias = Literal["query.image", "query.text", "candidate.image", "candidate.text"]
Side: TypeAlias = Literal["query", "candidate"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Segment:
    """Literal text, or one part of the pair with the text that frames it.

    `before` and `after` frame the part; an `optional` part that the item lacks takes its frame with it.
    """

    text: str = ""
    part: Part | None = None
    before: str = ""
    after: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """One answer. `variants` are its spellings (each read if it is a single token), `value` lies in [0, 1]."""

    name: str
    value: float
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a laid-out pair: text, or (`text` None) the image of one side."""

    side: Side | None
    text: str | None


@dataclass(frozen=True)
class Prompt:
    """Segments and labels under a name. p = Σ value · p(label) / Σ p(label)."""

    name: str
    segments: tuple[Segment, ...]
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        sides = {s.part.partition(".")[0] for s in self.segments if s.part}
        if sides != {"query", "candidate"}:
            raise UsageError(f"The prompt {self.name!r} must show at least one part of the query and of the candidate.")
        if len(set(self.parts)) != len(self.parts):
            raise UsageError(f"The prompt {self.name!r} shows a part twice; each part may stand once.")
        spellings = [v for label in self.labels for v in label.variants]
        if len(self.labels) < 2 or not all(label.variants for label in self.labels):
            raise UsageError(f"The prompt {self.name!r} needs at least two labels, each with a spelling.")
        if len(set(spellings)) != len(spellings) or "" in spellings:
            raise UsageError(
                f"The labels of the prompt {self.name!r} must have spellings that differ and are not empty."
            )
        if not all(0.0 <= label.value <= 1.0 for label in self.labels):
            raise UsageError(f"The label values of the prompt {self.name!r} must lie between 0 and 1.")

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts shown, in order."""
        return tuple(s.part for s in self.segments if s.part)

    @cached_property
    def hash(self) -> str:
        """Return 16 hex digits over segments and labels (not the name); equal hashes ask the same question."""
        body = {"segments": [asdict(s) for s in self.segments], "labels": [asdict(x) for x in self.labels]}
        text = json.dumps(body, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shares_query(self) -> bool:
        """Return True if a part of the query stands before the candidate, so that its work is done once per query."""
        return self.parts[0].startswith("query")

    def misfit(self, query: Item, candidate: Item) -> str | None:
        """Return why this pair cannot be shown, or None. Candidate parts that the prompt does not show are left out."""
        has = parts_of("query", query) | parts_of("candidate", candidate)
        for segment in self.segments:
            if segment.part and not segment.optional and segment.part not in has:
                return f"the pair lacks the {_described(segment.part)}, which this prompt shows"
        unseen = parts_of("query", query) - set(self.parts)
        if unseen:
            return f"it would ignore the {_described(min(unseen))}"
        for side in ("query", "candidate"):
            if not any(part in has for part in self.parts if part.startswith(side)):
                return f"it shows nothing of the {side}"
        return None

    def lay_out(self, query: Item, candidate: Item, clean: Callable[[str], str] = str) -> tuple[Piece, ...]:
        """Return the pair as images with texts between them; `clean` is applied to the two items' texts only."""
        return joined(piece for s in self.segments for piece in _pieces(s, query, candidate, clean))


def showing(item: Item, prompt: Prompt, side: str) -> Item:
    """Return an item with only the parts that the prompt shows of this side."""
    shown = {part.partition(".")[2] for part in prompt.parts if part.startswith(side)}
    return Item(item.id, item.image if "image" in shown else None, item.text if "text" in shown else None)


def joined(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Join neighbouring texts into one piece, because a tokenizer may merge across their border."""
    out: list[Piece] = []
    for piece in pieces:
        if out and piece.text is not None and out[-1].text is not None:
            out[-1] = Piece(None, out[-1].text + piece.text)
        else:
            out.append(piece)
    return tuple(out)


def parts_of(side: Side, item: Item) -> set[Part]:
    """Return the parts this item can show; stored visual tokens count as an image, blank text as none."""
    parts: set[Part] = set()
    if item.image is not None or item.tokens is not None:
        parts.add(cast(Part, f"{side}.image"))
    if has_words(item.text):
        parts.add(cast(Part, f"{side}.text"))
    return parts


def _described(part: Part) -> str:
    side, _, kind = part.partition(".")
    return f"{side}'s {'image' if kind == 'image' else 'text'}"


def _pieces(segment: Segment, query: Item, candidate: Item, clean: Callable[[str], str]) -> Sequence[Piece]:
    if segment.part is None:
        return [Piece(None, segment.text)] if segment.text else []
    side = cast(Side, segment.part.partition(".")[0])
    item = query if side == "query" else candidate
    if segment.part not in parts_of(side, item):
        return []
    if segment.part.endswith("text"):
        return [Piece(None, f"{segment.before}{clean(item.text or '')}{segment.after}")]
    framed = [Piece(None, segment.before), Piece(side, None), Piece(None, segment.after)]
    return [piece for piece in framed if piece.text != ""]
