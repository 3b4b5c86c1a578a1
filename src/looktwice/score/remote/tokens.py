"""Send stored visual tokens to vLLM in place of images.

A local copy of the model makes tokens for images that have none, and the embeddings of the text. Where a model counts
positions on one axis, vLLM takes the whole prompt as `prompt_embeds`, so that no chat template stands in between. Where
it counts them on three (Qwen-VL), it takes tokens as `image_embeds` with a grid. Both need a switch with which the
server trusts its clients. Tensors are only ever sent: nothing that a server sends is unpickled.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from looktwice.errors import ModelError, UsageError
from looktwice.score.local import batches
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.idefics3 import Idefics3
from looktwice.score.local.families.internvl import InternVL
from looktwice.score.local.families.llava_onevision import LlavaOnevision
from looktwice.score.local.families.qwen import Qwen35, QwenVL
from looktwice.score.prompting.prompt import Piece, Prompt
from looktwice.types import Block, Item, TokensInfo, VisualTokens

if TYPE_CHECKING:
    from torch import Tensor

ONE_AXIS = (Idefics3, InternVL, LlavaOnevision)


class TokenSender:
    """Turns pairs into tensors for vLLM. `engine` is a local scorer of the server's model.

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
        """Return the field of a request that carries tokens."""
        return "image_embeds" if self.grid else "prompt_embeds"

    @property
    def switch(self) -> str:
        """Return the option with which vLLM takes that field."""
        return "--enable-mm-embeds" if self.grid else "--enable-prompt-embeds"

    def settings(self) -> dict[str, str]:
        """Return whose tokens are sent, and how, for a run's manifest."""
        info = self.tokens_info()
        return {"tokens_from": f"{info.mllm}@{info.revision[:12]}", "sent_as": self.kind}

    def with_prompt(self, prompt: Prompt) -> TokenSender:
        """Return a sender for another prompt."""
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

    @torch.no_grad()
    def line(self, query: Item, candidate: Item) -> Tensor:
        """Return the embeddings [T, d] of a pair's whole prompt.

        Raises UsageError for tokens with gaps, ModelError for a pair that the model cannot be shown.
        """
        pieces = self.engine.prompt.lay_out(query, candidate)
        ready = self.engine.pairs(query, [candidate], [0], sum(piece.text is None for piece in pieces))
        if not ready:
            raise ModelError(f"{self.engine.mllm.name} cannot be shown {candidate.id!r} with this query; leave it out.")
        (pair,) = ready
        if not torch.equal(pair.row.positions[0], torch.arange(len(pair.row.ids))):
            raise _gaps()
        return batches.collate(self.engine.mllm.model, self.engine.family, [pair], 0).embeds[0]

    def content(self, pieces: Sequence[Piece], items: Mapping[str, Item]) -> list[dict[str, Any]]:
        """Return a laid-out pair as the parts of a message, with tokens and their grids."""
        return [
            {"type": "text", "text": piece.text} if piece.text is not None else self._with_grid(items[str(piece.side)])
            for piece in pieces
        ]

    def _with_grid(self, item: Item) -> dict[str, Any]:
        """Return an image's tokens with their grid in patches; DeepStack levels follow the features in every row."""
        tokens = item.tokens if item.tokens is not None else self.visual_tokens([item])[0]
        (block,) = (part for part in tokens.layout if isinstance(part, Block))
        if block.stride != 1 or block.grid is not None:
            raise _gaps()
        merge = int(self.engine.mllm.model.config.vision_config.spatial_merge_size)
        rows = [tokens.features, *(tokens.levels if tokens.levels is not None else ())]
        grid = torch.tensor([1, block.h * merge, block.w * merge])  # vLLM stacks those of a request
        data = {"image_embeds": saved(torch.cat(rows, dim=-1)), "image_grid_thw": saved(grid)}
        return {"type": "image_embeds", "image_embeds": data}


def saved(tensor: Tensor) -> str:
    """Return a tensor as text, in the form that vLLM reads."""
    buffer = io.BytesIO()
    torch.save(tensor.detach().cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _gaps() -> UsageError:
    return UsageError(
        "Pooled tokens leave positions empty, which vLLM cannot do; use a codec without pool, such as pq8."
    )
