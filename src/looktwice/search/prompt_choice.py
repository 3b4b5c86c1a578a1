"""Choose the prompt that shows a query with all of its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from looktwice.errors import UsageError
from looktwice.score.prompting import built_in
from looktwice.score.readout import modes
from looktwice.sources.loader import CandidateRef
from looktwice.types import Item, has_words

Ref: TypeAlias = Item | CandidateRef


def common_prompt(query: Item, candidates: Sequence[Item], mode: str) -> str:
    """Return the first prompt that shows all pairs and suits the mode."""
    lists = [built_in.fitting(query, candidate) for candidate in candidates]
    for name in lists[0]:
        if all(name in names for names in lists) and modes.suits(mode, built_in.get(name)):
            return name
    raise UsageError(
        "No built-in prompt can show this query with these candidates; write a prompt file and name it as the prompt."
    )


def kinds(candidates: Sequence[Ref]) -> list[Item]:
    """Return one stand-in for each kind of candidate: image, text or both."""
    return [_stand_in(*kind) for kind in dict.fromkeys(map(_kind, candidates))]


def _kind(candidate: Ref) -> tuple[bool, bool]:
    text = has_words(candidate.text)
    if isinstance(candidate, CandidateRef):
        return candidate.uri is not None, text
    return candidate.image is not None or candidate.tokens is not None, text


def _stand_in(image: bool, text: bool) -> Item:
    from PIL import Image

    return Item("", image=Image.new("RGB", (1, 1)) if image else None, text="…" if text else None)
