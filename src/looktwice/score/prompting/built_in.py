"""Hold the prompts that come with looktwice, and read others from files.

They follow the two papers (arXiv 2604.13268 and 2602.22278) clause by clause, in our own words.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import UnknownName, UsageError
from looktwice.score.prompting.prompt import PARTS, Label, Prompt, Segment
from looktwice.types import Item

_KINDS = {
    "name?": str,
    "segments": [(str, dict)],
    "labels": (list, dict),
}
_LABELS = [{"name": str, "value": float, "variants?": (list, str)}]
_SEGMENT = {"part?": str, "before?": str, "after?": str, "optional?": bool}


def fitting(query: Item, candidate: Item) -> list[str]:
    """Return the names of the built-in prompts that can show this pair: the best one first, `mixed` last."""
    return [p.name for p in PROMPTS.values() if p.misfit(query, candidate) is None]


def check(prompt: Prompt, query: Item, candidate: Item) -> None:
    """Raise UsageError, naming prompts that fit, if this prompt cannot show this pair."""
    why = prompt.misfit(query, candidate)
    if why is not None:
        names = fitting(query, candidate)
        hint = f"use {' or '.join(names[:3])}" if names else "give the item an image or a text"
        raise UsageError(f"The prompt {prompt.name!r} does not fit this pair: {why}; {hint}.")


def get(prompt: str | Path | Prompt) -> Prompt:
    """Return a prompt by its built-in name or from a .toml or .json file.

    Raises UnknownName if no prompt has that name, UsageError if the file is not a valid prompt.
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

    A segment is a string (a part such as "query.image", or literal text) or a table {part, before, after, optional}. A
    label is a table {name, value, variants}; without variants, its name is its one spelling. Labels may also be one
    table of names and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text) if path.suffix == ".toml" else read_json(text)
        demand(body, _KINDS, "it")
        segments = tuple(_segment(s) for s in body["segments"])
        labels = tuple(_label(x) for x in _labels(body["labels"]))
        return Prompt(str(body.get("name", path.stem)), segments, labels)
    except OSError as error:
        raise UsageError(f"The prompt file {path} cannot be read: {error.strerror or error}.") from error
    except UsageError:
        raise
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"The prompt file {path} is not valid ({error}); see how one looks: looktwice models prompt object --show"
        ) from error


def _segment(value: str | Mapping[str, Any]) -> Segment:
    if isinstance(value, str):
        return Segment(part=value) if value in PARTS else Segment(text=value)
    demand(value, _SEGMENT, "a segment")
    if value.get("part") not in PARTS or set(value) - {"part", "before", "after", "optional"}:
        raise UsageError(f"The segment {dict(value)!r} needs a part: one of {', '.join(PARTS)}.")
    return Segment(
        "", value["part"], str(value.get("before", "")), str(value.get("after", "")), bool(value.get("optional"))
    )


def _labels(given: Any) -> list[dict[str, Any]]:
    """Return labels as a list of tables, also from the short form {name: value}."""
    listed = [{"name": name, "value": value} for name, value in given.items()] if isinstance(given, dict) else given
    if isinstance(given, dict):
        demand(given, dict.fromkeys(given, float), "labels")
    demand(listed, _LABELS, "labels")
    return list(listed)


def _label(value: Mapping[str, Any]) -> Label:
    variants = value.get("variants", [value["name"]])
    if isinstance(variants, str) or not all(isinstance(v, str) for v in variants):
        raise UsageError(
            f'The variants of the label {value["name"]!r} must be a list of strings; write variants = ["Yes"].'
        )
    return Label(str(value["name"]), float(value["value"]), tuple(variants))


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


def _images(name: str, text: str, labels: tuple[Label, ...] = DIGITS) -> Prompt:
    pair = (Segment(part="query.image"), Segment(part="candidate.image"))
    return Prompt(name, (*pair, Segment(text=_TWO + text)), labels)


_BUILT_IN = (
    _images("object", _OBJECT + _OBJECT_BULLETS + _DIGIT),
    _images(
        "landmark",
        "Is the very landmark, building or architectural detail of the query also in the candidate?\n"
        "- It must be the same structure, not one that resembles it.\n"
        "- The query may show the whole or a close detail such as a door, a statue or a window.\n"
        "- Scale, viewpoint, light and occlusion may differ.\n" + _DIGIT,
    ),
    _images("generic", "Does the candidate resemble the query?\n" + _SO),
    _images(
        "object_details",
        _OBJECT + "- It must be the same individual object.\n- It may appear at another scale.\n"
        "- It may be only partly visible.\n- Other objects may be around it.\n" + _DIGIT,
    ),
    _images("object_simple", "Is the very object of the query (not just a similar one) in the candidate?\n" + _DIGIT),
    _images(
        "object_yesno",
        _OBJECT + _OBJECT_BULLETS + "Answer with one word only: Yes if it is present, No if it is absent.",
        YES_NO,
    ),
    _images("binary", _UNIQUE + "Answer with one digit only: 0 for different, 1 for the same. Write nothing else."),
    _images(
        "ternary",
        _UNIQUE
        + "Answer with one digit only: 0 for clearly different, 1 for possibly the same, 2 for definitely the same.",
        TERNARY,
    ),
    _images(
        "decimal",
        _UNIQUE
        + "Answer with one number only, from 1 to 10: 1 to 3 different, 4 to 6 the same category, 7 or 8 likely the "
        "same, 9 very likely, 10 almost certain.",
        TEN,
    ),
    _images(
        "class",
        "Does the candidate show an object of the same kind as the query's?\n- It need not be the same individual.\n"
        "- It may appear at another scale.\n- It may be only partly visible.\n- Other objects may be around it.\n"
        + _DIGIT,
    ),
    _images("class_simple", "Do both images show the same kind of thing?\n" + _SO),
    _images(
        "met",
        "Is the very artwork of the query also in the candidate?\n"
        "- It must be the same work, not a similar one or another of the same subject.\n"
        "- Scale, viewpoint and occlusion may differ, and other objects may be around it.\n" + _DIGIT,
    ),
    _images(
        "inat",
        "Does the candidate show the very species of the query?\n- Beware of species that look alike.\n"
        "- Angle, scale and occlusion may differ.\n" + _SO,
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
        "match",
        (
            Segment(part="candidate.image"),
            Segment(part="query.text", before="Does this image show what the caption says? Caption: <", after=">\n"),
            Segment(text=_TRUE),
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
        "score-mixed",
        (
            Segment(text="Query:"),
            Segment(part="query.image", before=" ", optional=True),
            Segment(part="query.text", before=" <", after=">", optional=True),
            Segment(text="\nCandidate:"),
            Segment(part="candidate.image", before=" ", optional=True),
            Segment(part="candidate.text", before=" <", after=">", optional=True),
            Segment(text="\nHow well does it answer the query? Write only a number from 0 to 1, such as 0.42."),
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
