"""Render the pieces of a prompt with the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from looktwice.errors import UsageError
from looktwice.score.prompting.prompt import Piece


def render(processor: Any, pieces: Sequence[Piece]) -> str:
    """Return one user turn with the generation prompt; each image is one placeholder of the model's own."""
    # through the tokenizer: one processor (SmolVLM's) demands a video processor for the same work
    options = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    return str(
        processor.tokenizer.apply_chat_template(
            messages(pieces),
            chat_template=processor.chat_template,
            tokenize=False,
            add_generation_prompt=True,
            **options,
        )
    )


def messages(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    """Return the pieces as one user message."""
    parts = [{"type": "image"} if piece.text is None else {"type": "text", "text": piece.text} for piece in pieces]
    return [{"role": "user", "content": parts}]


def adds_special_tokens(processor: Any, text: str) -> bool:
    """Return False if the template has already written the start token, so that it is not written twice."""
    start = processor.tokenizer.bos_token
    return start is None or not text.startswith(start)


def encode(processor: Any, text: str) -> list[int]:
    """Return the token ids of rendered text."""
    return list(processor.tokenizer(text, add_special_tokens=adds_special_tokens(processor, text))["input_ids"])


def check_template(processor: Any) -> None:
    """Raise UsageError if the chat template is missing or makes the model think before it answers."""
    if not processor.chat_template:
        raise UsageError("This model has no chat template, so it takes no prompt; choose an instruct model.")
    text = render(processor, [Piece("query", None), Piece("candidate", None), Piece(None, "?")])
    if text.rfind("<think>") > text.rfind("</think>"):
        raise UsageError(
            "This model thinks before it answers, so its next token is not the answer; choose its instruct variant."
        )
