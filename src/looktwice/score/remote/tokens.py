"""Send stored visual tokens to vLLM in place of images.

A local copy of the model makes tokens for images that have none. vLLM takes tokens as `prompt_embeds` where a model
counts positions on one axis, and as `image_embeds` with a grid where it counts them on three (Qwen-VL). Both need a
switch with which the server trusts its clients. Tensors are only ever sent: nothing a server sends is unpickled.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from looktwice.errors import ModelError, UsageError
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.idefics3 import Idefics3
from looktwice.score.local.families.internvl import InternVL
from looktwice.score.local.families.llava_onevision import LlavaOnevision
from looktwice.score.local.families.qwen import Qwen35, QwenVL
from looktwice.score.prompting import chat
from looktwice.score.prompting.prompt import Piece, Prompt
from looktwice.types import Block, Item, TextIds, TokensInfo, VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

ONE_AXIS = (Idefics3, InternVL, LlavaOnevision)
_BEFORE, _AFTER = "⟦before⟧", "⟦after⟧"


class TokenSender:
    """Turns an item into message parts with its visual tokens. `engine` is a local scorer of the server's model.

    Raises UsageError for a family whose tokens vLLM does not take.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        family = engine.family
        self.grid = isinstance(family, QwenVL) and not isinstance(family, Qwen35)
        if not self.grid and not isinstance(family, ONE_AXIS):
            raise UsageError(
                f"vLLM takes no stored tokens of {engine.mllm.name}, a model of the family {type(family).__name__}; "
                "leave --tokens-from out and send images."
            )

    @property
    def kind(self) -> str:
        """Return the kind of part that carries tokens."""
        return "image_embeds" if self.grid else "prompt_embeds"

    @property
    def switch(self) -> str:
        """Return the option with which vLLM takes such parts."""
        return "--enable-mm-embeds" if self.grid else "--enable-prompt-embeds"

    def settings(self) -> dict[str, str]:
        """Return whose tokens are sent, and how, for a run's manifest."""
        info = self.tokens_info()
        return {"tokens_from": f"{info.mllm}@{info.revision[:12]}", "sent_as": self.kind}

    def with_prompt(self, prompt: Prompt) -> TokenSender:
        """Return a sender for a prompt that may show another number of images."""
        return TokenSender(self.engine.with_prompt(prompt))

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return the tokens of images; see TokenMaker."""
        return self.engine.visual_tokens(items)

    def tokens_info(self) -> TokensInfo:
        """Return the facts that a table stores; see TokenMaker."""
        return self.engine.tokens_info()

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        """Return where tokens are decoded; see TokenMaker. They leave for the server, so: the CPU."""
        return "cpu", self.engine.placement()[1]

    def parts(self, item: Item) -> list[dict[str, Any]]:
        """Return the parts of a message that show an item's image. Raises ModelError for tokens with gaps."""
        tokens = item.tokens if item.tokens is not None else self.visual_tokens([item])[0]
        blocks = [part for part in tokens.layout if isinstance(part, Block)]
        if any(block.stride != 1 or block.grid is not None for block in blocks):
            raise UsageError(
                "Pooled tokens leave positions empty, which vLLM cannot do; use a codec without pool, such as pq8."
            )
        return [self._with_grid(tokens, blocks)] if self.grid else self._in_line(tokens)

    def _in_line(self, tokens: VisualTokens) -> list[dict[str, Any]]:
        before, after = self._around
        parts: list[dict[str, Any]] = [_text(before)]
        pending: list[Tensor] = []
        at = 0
        for part in tokens.layout:
            if isinstance(part, TextIds):
                parts += [*_embeds(pending), _text(self._spelled(part.ids))]
                pending = []
            elif isinstance(part, Block):
                rows = tokens.features[at : at + part.h * part.w]
                at += part.h * part.w
                pending.append(self._with_newlines(rows, part))
            else:
                pending.append(self._newline(rows=1))
        return [part for part in (*parts, *_embeds(pending), _text(after)) if part.get("text") != ""]

    def _with_newlines(self, rows: Tensor, block: Block) -> Tensor:
        if not block.newlines:
            return rows
        grid = rows.reshape(block.h, block.w, -1)
        return torch.cat([grid, self._newline(block.h)[:, None].to(grid)], dim=1).flatten(0, 1)

    def _newline(self, rows: int) -> Tensor:
        vector = self.engine.family.newline()
        assert vector is not None
        return vector.detach().cpu().expand(rows, -1)

    def _with_grid(self, tokens: VisualTokens, blocks: Sequence[Block]) -> dict[str, Any]:
        """Return the tokens with their grid in patches; DeepStack levels follow the features in every row."""
        (block,) = blocks
        merge = int(self.engine.mllm.model.config.vision_config.spatial_merge_size)
        rows = [tokens.features, *(tokens.levels if tokens.levels is not None else ())]
        grid = torch.tensor([[1, block.h * merge, block.w * merge]])
        data = {"image_embeds": _saved(torch.cat(rows, dim=-1)), "image_grid_thw": _saved(grid)}
        return {"type": "image_embeds", "image_embeds": data}

    def _spelled(self, ids: Sequence[int]) -> str:
        """Return text that the tokenizer reads as these ids."""
        tokenizer = self.engine.mllm.processor.tokenizer
        text = str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if list(tokenizer.encode(text, add_special_tokens=False)) != list(ids):
            raise ModelError(f"The markers between {self.engine.mllm.name}'s tokens cannot be written; send images.")
        return text

    @cached_property
    def _around(self) -> tuple[str, str]:
        """Return what the chat template writes before and after the placeholder of an image."""
        processor, family = self.engine.mllm.processor, self.engine.family
        pieces = [Piece(None, _BEFORE), Piece("query", None), Piece(None, _AFTER)]
        text = family.rewrite(chat.render(processor, pieces))
        inner = text.partition(_BEFORE)[2].partition(_AFTER)[0]
        before, found, after = inner.partition(processor.image_token)
        if not found:
            raise UsageError(
                f"The chat template of {self.engine.mllm.name} moves images away from their place in the text, so "
                "tokens cannot take it; leave --tokens-from out and send images."
            )
        return before, after


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _embeds(rows: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [{"type": "prompt_embeds", "data": _saved(torch.cat(list(rows)))}] if rows else []


def _saved(tensor: Tensor) -> str:
    buffer = io.BytesIO()
    torch.save(tensor.detach().cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
