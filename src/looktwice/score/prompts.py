"""Prompts as data: what a pair looks like to the model, and which answers are read.

A prompt is a row of segments (literal text, and the parts of the pair) and a set of labels with values; the score of a
pair is the mean of the values under the model's distribution over the labels. The built-in prompts follow the two papers
(arXiv 2604.13268 and 2602.22278) clause by clause, in our own words. Nothing here knows a model or a tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from looktwice.errors import UnknownName, UsageError
from looktwice.types import Item

Part: TypeAlias = Literal["query.image", "query.text", "candidate.image", "candidate.text"]
Side: TypeAlias = Literal["query", "candidate"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Segment:
    """Literal text, or one part of the pair with the words that come and go with it.

    `before` and `after` frame the part; an `optional` part that the item lacks takes its frame with it.
    """

    text: str = ""
    part: Part | None = None
    before: str = ""
    after: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """One answer. `variants` are its spellings (each read where it is a single token), `value` lies in [0, 1]."""

    name: str
    value: float
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a laid-out pair: text, or (`text` None) the picture of one side."""

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
        """The parts shown, in order."""
        return tuple(s.part for s in self.segments if s.part)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over segments and labels (not the name): equal hashes ask the same question."""
        body = {"segments": [asdict(s) for s in self.segments], "labels": [asdict(x) for x in self.labels]}
        text = json.dumps(body, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shares_query(self) -> bool:
        """True where a part of the query stands before the candidate, so that its work is done once per query."""
        return self.parts[0].startswith("query")

    def misfit(self, query: Item, candidate: Item) -> str | None:
        """Why this pair cannot be shown, or None. Parts of a candidate that the prompt does not show are left out."""
        has = parts_of("query", query) | parts_of("candidate", candidate)
        for segment in self.segments:
            if segment.part and not segment.optional and segment.part not in has:
                return f"it shows the {_words(segment.part)}, and there is none"
        unseen = parts_of("query", query) - set(self.parts)
        if unseen:
            return f"it would ignore the {_words(min(unseen))}"
        for side in ("query", "candidate"):
            if not any(part in has for part in self.parts if part.startswith(side)):
                return f"it shows nothing of the {side}"
        return None

    def check(self, query: Item, candidate: Item) -> None:
        """Raise UsageError, naming prompts that fit, where this pair cannot be shown."""
        why = self.misfit(query, candidate)
        if why is not None:
            names = fitting(query, candidate)
            hint = f"use {' or '.join(names[:3])}" if names else "give the item a picture or a text"
            raise UsageError(f"The prompt {self.name!r} does not fit this pair: {why}; {hint}.")

    def lay_out(self, query: Item, candidate: Item, clean: Callable[[str], str] = str) -> tuple[Piece, ...]:
        """The pair as pictures with texts between them; `clean` is applied to the texts of the two items only."""
        self.check(query, candidate)
        pieces: list[Piece] = []
        for piece in (p for s in self.segments for p in _pieces(s, query, candidate, clean)):
            if pieces and piece.text is not None and pieces[-1].text is not None:
                pieces[-1] = Piece(None, pieces[-1].text + piece.text)
            else:
                pieces.append(piece)
        return tuple(pieces)


def parts_of(side: Side, item: Item) -> set[Part]:
    """What this item has to show; stored visual tokens count as a picture, blank text as none."""
    parts: set[Part] = set()
    if item.image is not None or item.tokens is not None:
        parts.add(cast(Part, f"{side}.image"))
    if item.text and item.text.strip():
        parts.add(cast(Part, f"{side}.text"))
    return parts


def fitting(query: Item, candidate: Item) -> list[str]:
    """Names of built-in prompts that can show this pair, the one made for it first."""
    shown = parts_of("query", query) | parts_of("candidate", candidate)
    fit = [p for p in PROMPTS.values() if p.misfit(query, candidate) is None]
    return [p.name for p in sorted(fit, key=lambda p: (len(shown - set(p.parts)), p.name == "mixed"))]


def get(prompt: str | Path | Prompt) -> Prompt:
    """A prompt by its built-in name or from a .toml or .json file.

    Raises UnknownName where nothing has that name, UsageError where a file cannot be understood.
    """
    if isinstance(prompt, Prompt):
        return prompt
    if str(prompt) in PROMPTS:
        return PROMPTS[str(prompt)]
    path = Path(prompt)
    if path.suffix in (".toml", ".json"):
        return read(path)
    raise UnknownName("prompt", str(prompt), PROMPTS)


def read(path: Path) -> Prompt:
    """Read a prompt from a file of `name`, `segments` and `labels`.

    A segment is a string (a part such as "query.image", or literal text) or a table {part, before, after, optional}; a
    label is a table {name, value, variants}, its variants being its name unless given.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        segments = tuple(_segment(s) for s in body["segments"])
        labels = tuple(_label(x) for x in body["labels"])
        return Prompt(str(body.get("name", path.stem)), segments, labels)
    except OSError as error:
        raise UsageError(f"The prompt file {path} cannot be read: {error.strerror or error}.") from error
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The prompt file {path} is not understood ({error!r}): it needs `segments` and `labels`."
        ) from error


def _segment(value: str | Mapping[str, Any]) -> Segment:
    if isinstance(value, str):
        return Segment(part=value) if value in PARTS else Segment(text=value)
    if value.get("part") not in PARTS or set(value) - {"part", "before", "after", "optional"}:
        raise UsageError(f"The segment {dict(value)!r} needs a part: one of {', '.join(PARTS)}.")
    return Segment(
        "", value["part"], str(value.get("before", "")), str(value.get("after", "")), bool(value.get("optional"))
    )


def _label(value: Mapping[str, Any]) -> Label:
    variants = value.get("variants", [value["name"]])
    if isinstance(variants, str) or not all(isinstance(v, str) for v in variants):
        raise UsageError(f"The variants of the label {value['name']!r} must be a list of strings.")
    return Label(str(value["name"]), float(value["value"]), tuple(variants))


def _words(part: Part) -> str:
    side, _, kind = part.partition(".")
    return f"{side}'s {'picture' if kind == 'image' else 'text'}"


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


DIGITS = (Label("0", 0.0, ("0",)), Label("1", 1.0, ("1",)))
YES_NO = (Label("No", 0.0, ("No", "no", " No", " no")), Label("Yes", 1.0, ("Yes", "yes", " Yes", " yes")))
TRUE_FALSE = (
    Label("False", 0.0, ("False", "false", " False", " false")),
    Label("True", 1.0, ("True", "true", " True", " true")),
)
TERNARY = (Label("0", 0.0, ("0",)), Label("1", 0.5, ("1",)), Label("2", 1.0, ("2",)))
TEN = tuple(Label(str(n), (n - 1) / 9, (str(n),)) for n in range(1, 11))

_TWO = "The first image is the query, the second is the candidate. "
_DIGIT = "Answer with one digit only: 1 if it is present, 0 if it is absent. Write nothing else."
_SO = "Answer with one digit only: 1 if so, 0 if not. Write nothing else."
_OBJECT = "Is the very object of the query also in the candidate?\n"
_OBJECT_BULLETS = (
    "- It must be the same individual object, not one that looks alike.\n"
    "- It may be larger or smaller, partly hidden, or among other things.\n"
)
_UNIQUE = (
    "Decide whether both show one and the same individual thing. Compare what makes it unique: marks, textures, logos, "
    "where these sit. Changes of size, brightness, orientation or occlusion do not matter; being of the same type or "
    "model is not enough.\n"
)
_TRUE = "Reply with one word only: True or False."


def _pictures(name: str, text: str, labels: tuple[Label, ...] = DIGITS) -> Prompt:
    pair = (Segment(part="query.image"), Segment(part="candidate.image"))
    return Prompt(name, (*pair, Segment(text=_TWO + text)), labels)


_BUILT_IN = (
    _pictures("object", _OBJECT + _OBJECT_BULLETS + _DIGIT),
    _pictures(
        "landmark",
        "Is the very landmark, building or architectural detail of the query also in the candidate?\n"
        "- It must be the same structure, not one that resembles it.\n"
        "- The query may show the whole or a close detail such as a door, a statue or a window.\n"
        "- Scale, viewpoint, light and occlusion may differ.\n" + _DIGIT,
    ),
    _pictures("generic", "Does the candidate resemble the query?\n" + _SO),
    _pictures(
        "object_details",
        _OBJECT + "- It must be the same individual object.\n- It may appear at another scale.\n"
        "- It may be only partly visible.\n- Other objects may be around it.\n" + _DIGIT,
    ),
    _pictures("object_simple", "Is the very object of the query (not just a similar one) in the candidate?\n" + _DIGIT),
    _pictures(
        "object_yesno",
        _OBJECT + _OBJECT_BULLETS + "Answer with one word only: Yes if it is present, No if it is absent.",
        YES_NO,
    ),
    _pictures("binary", _UNIQUE + "Answer with one digit only: 0 for different, 1 for the same. Write nothing else."),
    _pictures(
        "ternary",
        _UNIQUE
        + "Answer with one digit only: 0 for clearly different, 1 for possibly the same, 2 for definitely the same.",
        TERNARY,
    ),
    _pictures(
        "decimal",
        _UNIQUE
        + "Answer with one number only, from 1 to 10: 1 to 3 different, 4 to 6 the same category, 7 or 8 likely the "
        "same, 9 very likely, 10 almost certain.",
        TEN,
    ),
    _pictures(
        "class",
        "Does the candidate show an object of the same kind as the query's?\n- It need not be the same individual.\n"
        "- It may appear at another scale.\n- It may be only partly visible.\n- Other objects may be around it.\n"
        + _DIGIT,
    ),
    _pictures("class_simple", "Do both images show the same kind of thing?\n" + _SO),
    _pictures(
        "met",
        "Is the very artwork of the query also in the candidate?\n"
        "- It must be the same work, not a similar one or another of the same subject.\n"
        "- Scale, viewpoint and occlusion may differ, and other objects may be around it.\n" + _DIGIT,
    ),
    _pictures(
        "inat",
        "Does the candidate show the very species of the query?\n- Beware of species that look alike.\n"
        "- Angle, scale and occlusion may differ.\n" + _SO,
    ),
    Prompt(
        "match",
        (
            Segment(part="candidate.image"),
            Segment(part="query.text", before="Does this image show what the caption says? Caption: <", after=">\n"),
            Segment(text=_TRUE),
        ),
        TRUE_FALSE,
    ),
    Prompt(
        "match-query-first",
        (
            Segment(part="query.text", before="Caption: <", after=">\n"),
            Segment(part="candidate.image"),
            Segment(text="Does this image show what the caption says? " + _TRUE),
        ),
        TRUE_FALSE,
    ),
    Prompt(
        "caption",
        (
            Segment(part="query.image"),
            Segment(
                part="candidate.text", before="Does this image show what the caption says? Caption: <", after=">\n"
            ),
            Segment(text=_TRUE),
        ),
        TRUE_FALSE,
    ),
    Prompt(
        "composed",
        (
            Segment(part="query.image", before="Query image: "),
            Segment(part="candidate.image", before="\nCandidate image: "),
            Segment(part="candidate.text", before="\nCandidate caption: <", after=">", optional=True),
            Segment(part="query.text", before="\nQuery text: <", after=">\n"),
            Segment(text="Does the candidate fit the query image together with the query text? " + _TRUE),
        ),
        TRUE_FALSE,
    ),
    Prompt(
        "composed-query-first",
        (
            Segment(part="query.image", before="Query image: "),
            Segment(part="query.text", before="\nQuery text: <", after=">"),
            Segment(part="candidate.image", before="\nCandidate image: "),
            Segment(part="candidate.text", before="\nCandidate caption: <", after=">", optional=True),
            Segment(text="\nDoes the candidate fit the query image together with the query text? " + _TRUE),
        ),
        TRUE_FALSE,
    ),
    Prompt(
        "score",
        (
            Segment(part="candidate.image", before="Candidate: "),
            Segment(part="query.text", before="\nQuery: <", after=">\n"),
            Segment(text="How well does the image match the query? Write only a number from 0 to 1, such as 0.42."),
        ),
        DIGITS,
    ),
    Prompt(
        "mixed",
        (
            Segment(text="Query:"),
            Segment(part="query.image", before=" ", optional=True),
            Segment(part="query.text", before=" <", after=">", optional=True),
            Segment(text="\nCandidate:"),
            Segment(part="candidate.image", before=" ", optional=True),
            Segment(part="candidate.text", before=" <", after=">", optional=True),
            Segment(text="\nDoes the candidate answer the query? " + _TRUE),
        ),
        TRUE_FALSE,
    ),
)
PROMPTS: dict[str, Prompt] = {prompt.name: prompt for prompt in _BUILT_IN}
