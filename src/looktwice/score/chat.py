"""From the pieces of a prompt to the text that a model reads: its own chat template, and nothing smuggled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from looktwice.errors import UsageError
from looktwice.score.prompt import Piece
from looktwice.types import shortened


def render(processor: Any, pieces: Sequence[Piece]) -> str:
    """One user turn with the generation prompt; every picture is one placeholder of the model's own."""
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
    """The pieces as one user message."""
    parts = [{"type": "image"} if piece.text is None else {"type": "text", "text": piece.text} for piece in pieces]
    return [{"role": "user", "content": parts}]


def adds_special_tokens(processor: Any, text: str) -> bool:
    """False where the template has already written the start token, so that there are not two."""
    start = processor.tokenizer.bos_token
    return start is None or not text.startswith(start)


def encode(processor: Any, text: str) -> list[int]:
    """Token ids of rendered text."""
    return list(processor.tokenizer(text, add_special_tokens=adds_special_tokens(processor, text))["input_ids"])


def check_template(processor: Any) -> None:
    """Raise UsageError where there is no chat template, or one that makes the model think before it answers."""
    if not processor.chat_template:
        raise UsageError("This model has no chat template, so it cannot be asked anything; choose an instruct model.")
    text = render(processor, [Piece("query", None), Piece("candidate", None), Piece(None, "?")])
    if text.rfind("<think>") > text.rfind("</think>"):
        raise UsageError(
            "This model thinks before it answers, so its next token is no answer; choose its instruct variant."
        )


def cleaner(processor: Any) -> Callable[[str], str]:
    """A function that takes the sting out of text that people wrote.

    Spellings of control tokens ("<image>", "<|im_end|>") get a space after their first character, so that they are
    read as the text they are; lone surrogates, which no tokenizer accepts, become question marks. Long text is cut.
    """
    tokenizer = processor.tokenizer
    control = {str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special}
    control |= {str(t) for t in tokenizer.all_special_tokens}
    control |= {str(getattr(processor, name)) for name in ("image_token", "video_token") if hasattr(processor, name)}
    spellings = sorted((re.escape(t) for t in control if len(t) > 1 and t.strip() == t), key=len, reverse=True)
    pattern = re.compile("|".join(spellings) or r"(?!)")

    def clean(text: str) -> str:
        text = shortened(text).encode("utf-8", "replace").decode("utf-8")
        while (apart := pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)) != text:
            text = apart
        return text

    return clean
