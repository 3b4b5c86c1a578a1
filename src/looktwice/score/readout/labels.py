"""Find the token ids that spell a prompt's labels in one tokenizer."""

from __future__ import annotations

from typing import Any

from looktwice.errors import UsageError
from looktwice.score.prompting.prompt import Label, Prompt
from looktwice.score.readout.probability import LabelIds

SPACE_MARKS = ("\u2581", "\u0120")  # how SentencePiece and byte-level vocabularies write a leading space


def resolve(prompt: Prompt, tokenizer: Any) -> LabelIds:
    """Return the token ids of every label of `prompt`.

    A variant counts if the tokenizer has exactly one token for it, spelled as written (no space added in front).
    Raises UsageError if a label has no such token, or if two labels share one.
    """
    ids = tuple(_ids(prompt, label, tokenizer) for label in prompt.labels)
    flat = [i for variants in ids for i in variants]
    if len(set(flat)) != len(flat):
        raise UsageError(f"Two labels of the prompt {prompt.name!r} are the same token in this tokenizer; change one.")
    return LabelIds(ids, tuple(label.value for label in prompt.labels))


def single_token(text: str, tokenizer: Any) -> int | None:
    """Return the one token that spells `text`, or None.

    Some tokenizers put a space before every text they encode. The vocabulary is then searched for the piece without
    the space, because no space follows a generation prompt.
    """
    encoded = tokenizer.encode(text, add_special_tokens=False)
    found = encoded[0] if len(encoded) == 1 else None
    if found is None or _starts_with_space(tokenizer.convert_ids_to_tokens(found)) != text.startswith(" "):
        vocabulary = tokenizer.get_vocab()
        spelled = (vocabulary.get(text.replace(" ", mark)) for mark in SPACE_MARKS)
        found = next((i for i in spelled if i is not None), found)
    return None if found is None or found == tokenizer.unk_token_id else int(found)


def _starts_with_space(token: str) -> bool:
    return token.startswith((" ", *SPACE_MARKS))


def _ids(prompt: Prompt, label: Label, tokenizer: Any) -> tuple[int, ...]:
    found = (single_token(variant, tokenizer) for variant in label.variants)
    ids = tuple(dict.fromkeys(i for i in found if i is not None))
    if not ids:
        raise UsageError(
            f"This model's tokenizer has no single token for {label.name!r}, an answer of the prompt {prompt.name!r}; "
            "choose another prompt or model."
        )
    return ids
