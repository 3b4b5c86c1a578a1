"""What the training pairs ask. The built-in prompts are there word for word, and paraphrases beside them, so that
the model
reads the question instead of recognising one string."""

from __future__ import annotations

from random import Random

from looktwice.score.prompting.built_in import DIGITS, PROMPTS, TRUE_FALSE, YES_NO, Label, Prompt, Segment

IMAGES = (Segment(part="query.image"), Segment(part="candidate.image"))


def _object(text: str, labels: tuple[Label, ...] = DIGITS) -> Prompt:
    return Prompt("short", (*IMAGES, Segment(text=text)), labels)


def _match(text: str, labels: tuple[Label, ...], image_first: bool) -> Prompt:
    image = Segment(part="candidate.image")
    caption = Segment(part="query.text", before="<", after="> ")
    return Prompt("short", (*((image, caption) if image_first else (caption, image)), Segment(text=text)), labels)


SHORT_OBJECT = (
    _object("Same object? 1 or 0."),
    _object("Same object in both? Yes or No.", YES_NO),
    _object("The object of the query is in the candidate. True or False?", TRUE_FALSE),
    _object("Is it present? Answer 1 if present, 0 if absent."),
    _object("Is the same object in the second image? One digit, 1 or 0."),
)
LONG_OBJECT = tuple(
    PROMPTS[n] for n in ("object", "object_simple", "object_yesno", "object_details", "generic", "binary")
)
SHORT_CLASS = (
    _object("Same kind of thing? 1 or 0."),
    _object("Same kind of thing in both? Yes or No.", YES_NO),
)
LONG_CLASS = (PROMPTS["class"], PROMPTS["class_simple"])
SHORT_MATCH = (
    _match("Match? True or False.", TRUE_FALSE, False),
    _match("Is it in the image? Yes or No.", YES_NO, False),
    _match("Match? 1 or 0.", DIGITS, False),
    _match("Match? True or False.", TRUE_FALSE, True),
    _match("Does the image show it? Yes or No.", YES_NO, True),
)
LONG_MATCH = tuple(PROMPTS[n] for n in ("match-query-first", "match", "caption"))
COMPOSED = tuple(PROMPTS[n] for n in ("composed", "composed-query-first", "mixed"))
SCORE = (PROMPTS["score"],)

FAMILIES = {
    "object": (SHORT_OBJECT, LONG_OBJECT),
    "class": (SHORT_CLASS, LONG_CLASS),
    "match": (SHORT_MATCH, LONG_MATCH),
    "composed": (COMPOSED, COMPOSED),
    "score": (SCORE, SCORE),
}


def draw(family: str, long: float, rng: Random) -> Prompt:
    """A wording of this family; `long` is the share of the built-in, longer ones. The canonical prompt comes most
    often."""
    short_ones, long_ones = FAMILIES[family]
    if rng.random() >= long:
        return rng.choice(short_ones)
    return long_ones[0] if rng.random() < 0.5 else rng.choice(long_ones)


def answer(prompt: Prompt, positive: bool) -> str:
    """The spelling that the model is taught: the first variant of the best or of the worst label."""
    label = max(prompt.labels, key=lambda x: x.value) if positive else min(prompt.labels, key=lambda x: x.value)
    return label.variants[0]
