"""Which token ids spell a prompt's labels, for one tokenizer."""

from __future__ import annotations

from typing import Any

from looktwice.errors import UsageError
from looktwice.score.prompting.prompt import Label, Prompt
from looktwice.score.readout.probability import LabelIds

SPACE_MARKS = ("\u2581", "\u0120")  # how SentencePiece and byte-level vocabularies write a leading space


def resolve(prompt: Prompt, tokenizer: Any) -> LabelIds:
    """Token ids of every label of `prompt`.

    A variant counts where the tokenizer has exactly one token for it, spelled as it stands (no space added in front).
    Raises UsageError where a label has none, or where two labels share one.
    """
    ids = tuple(_ids(prompt, label, tokenizer) for label in prompt.labels)
    flat = [i for variants in ids for i in variants]
    if len(set(flat)) != len(flat):
        raise UsageError(f"Two labels of the prompt {prompt.name!r} are the same token for this tokenizer; change one.")
    return LabelIds(ids, tuple(label.value for label in prompt.labels))


def single_token(text: str, tokenizer: Any) -> int | None:
    """The one token that spells `text`, or None.

    Some tokenizers put a space before every text they encode; the piece without it, which is what follows a generation
    prompt, is then looked up in the vocabulary.
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
            f"The prompt {prompt.name!r} needs a single token for its answer {label.name!r}, and this model's "
            "tokenizer has none; choose another prompt or model."
        )
    return ids
