"""Define what all families share: images to visual tokens, and layouts to rows of ids and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from looktwice.errors import ModelError, UsageError
from looktwice.score.local.rows import Batch, PromptRow
from looktwice.types import Block, Layout, Newline, TextIds, VisualTokens

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image after the model's own processor: its tensors, and the ids that stand for it in the text.

    `images_shown`: how many images the prompt shows, including this one.
    """

    tensors: Mapping[str, Tensor]
    ids: tuple[int, ...]
    images_shown: int

    @property
    def size(self) -> int:
        """Return how many numbers the pixel tensor has, which limits a batch through the tower."""
        return self.tensors["pixel_values"].numel()


class Family:
    """The differences of one family, bound to a loaded model. The base class is a one-axis family without extras."""

    decoder_name: ClassVar[str] = "language_model"
    layer_kinds: ClassVar[frozenset[str]] = frozenset({"full_attention"})
    native_resolution: ClassVar[bool] = False
    depends_on_images: ClassVar[bool] = False
    levels: int = 0

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.image_token_id = int(model.config.image_token_id)

    @property
    def decoder(self) -> Any:
        """Return the language model without its head."""
        return getattr(self.model.model, self.decoder_name)

    @cached_property
    def cache_argument(self) -> str:
        """Return the name under which the decoder takes keys and values.

        transformers 5.24 renamed `past_key_values` to `cache`, and a release knows one of them without a warning.
        """
        return "cache" if "cache" in signature(self.decoder.forward).parameters else "past_key_values"

    @property
    def width(self) -> int:
        """Return d, the width of a visual token."""
        return int(self.model.config.get_text_config().hidden_size)

    @classmethod
    def limit_tiles(cls, processor: Any, most: int) -> None:
        """Limit the processor to at most `most` tiles per image."""
        raise UsageError("This model does not cut images into tiles; leave --max-tiles out.")

    @classmethod
    def refuses(cls, config: Any, processor: Any) -> str | None:
        """Return why a model with this configuration and processor must take the reference path, or None."""
        return None

    def rewrite(self, text: str) -> str:
        """Return the rendered text as the processor passes it to the tokenizer, with one placeholder per image."""
        return text

    def prepare(self, image: Image, images_shown: int) -> Prepared:
        """Run the model's own processor on one image of a prompt that shows `images_shown` images."""
        # the processor writes the ids too: they hold the markers that it puts around tiles and rows
        made = self.processor(
            text=[self.processor.image_token], images=[[image]], add_special_tokens=False, return_tensors="pt"
        )
        return Prepared(made, tuple(made["input_ids"][0].tolist()), images_shown)

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        """Run the vision tower on a batch of images."""
        raise NotImplementedError

    def accepts(self, layout: Layout, images_shown: int) -> bool:
        """Return whether tokens of this layout suit a prompt that shows `images_shown` images."""
        return True

    def newline(self) -> Tensor | None:
        """Return the learned end-of-row vector [d] of families that have one, else None."""
        return None

    def extras(self, ids: Tensor, visual: Tensor, levels: Sequence[Tensor]) -> dict[str, Any]:
        """Return further arguments of the decoder.

        `ids` [n, C] are visual where the mask `visual` [n, C] is true; `levels` are [L, T, d] each.
        """
        return {}

    def mask(self, distances: Tensor, visual: Tensor) -> Any:
        """Return the decoder's attention mask, true where a token may attend.

        `distances` [1 or n, 1, C, K]: how many tokens a key lies before a new token, below zero if it comes after;
        `visual` [n, C] marks the new tokens of images, the last C of the K keys.
        """
        return distances >= 0

    def finish(self, logits: Tensor) -> Tensor:
        """Return the model's logits from its head's output."""
        return logits

    def ignoring_padding(self, batch: Batch) -> AbstractContextManager[None]:
        """Return a context in which padding on the right changes no layer's state; attention needs nothing for it."""
        return nullcontext()

    def lay_out(self, ids: Sequence[int], shape: tuple[int, int]) -> Layout:
        """Return the layout that an image's ids spell: h·w placeholders are a block, the last block the whole view."""
        area = shape[0] * shape[1]
        parts: list[Block | Newline | TextIds] = []
        for placeholder, run in groupby(ids, key=lambda i: i == self.image_token_id):
            members = tuple(run)
            if not placeholder:
                parts.append(TextIds(members))
                continue
            if len(members) % area:
                raise ModelError(
                    f"An image has {len(members)} tokens, which is not a multiple of {area}; use the reference path."
                )
            parts += [Block("tile", *shape)] * (len(members) // area)
        # processors write the whole view after the tiles, with the same number of placeholders
        last = max(i for i, part in enumerate(parts) if isinstance(part, Block))
        parts[last] = Block("global", *shape)
        return tuple(parts)

    def expand_placeholders(self, ids: Sequence[int], layouts: Sequence[Layout]) -> PromptRow:
        """Expand the placeholders in `ids` by the layouts, in order."""
        walk = _Walk(self)
        left = iter(layouts)
        if sum(i == self.image_token_id for i in ids) != len(layouts):
            raise ModelError("The chat template shows another number of images than the prompt; choose another model.")
        for token in ids:
            if token == self.image_token_id:
                walk.image(next(left))
            else:
                walk.text([token])
        return walk.row()

    def position_ids(self, block: Block, start: int) -> tuple[Tensor, int]:
        """Return positions [axes, tokens and newlines] of a block from position `start` on, and the next position.

        Tokens that a codec has dropped leave their positions empty.
        """
        rows, columns = block.rows_cols
        stretch = columns + block.newlines  # a newline takes a position at the end of every row
        across = torch.arange(block.w) * block.stride
        if block.newlines:
            across = torch.cat([across, torch.tensor([columns])])
        down = torch.arange(block.h) * block.stride * stretch
        return (start + down[:, None] + across).reshape(1, -1), start + rows * stretch


class _Walk:
    """Writes one row from left to right."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.ids: list[int] = []
        self.kinds: list[int] = []  # 0 text, 1 visual token, 2 newline
        self.positions: list[Tensor] = []
        self.starts: list[int] = []
        self.next = 0

    def text(self, ids: Sequence[int]) -> None:
        self._put(ids, [0] * len(ids), torch.arange(self.next, self.next + len(ids))[None])
        self.next += len(ids)

    def image(self, layout: Layout) -> None:
        self.starts.append(len(self.ids))
        for part in layout:
            if isinstance(part, TextIds):
                self.text(part.ids)
            elif isinstance(part, Newline):
                self._put([self.family.image_token_id], [2], torch.tensor([[self.next]]))
                self.next += 1
            else:
                positions, self.next = self.family.position_ids(part, self.next)
                kinds = ([1] * part.w + [2] * part.newlines) * part.h
                self._put([self.family.image_token_id] * len(kinds), kinds, positions)

    def _put(self, ids: Sequence[int], kinds: Sequence[int], positions: Tensor) -> None:
        self.ids += ids
        self.kinds += kinds
        self.positions.append(positions)

    def row(self) -> PromptRow:
        axes = max(p.shape[0] for p in self.positions)  # text has one position, which holds on every axis
        kinds = torch.tensor(self.kinds)
        positions = torch.cat([p.expand(axes, -1) for p in self.positions], dim=1)
        return PromptRow(torch.tensor(self.ids), kinds == 1, kinds == 2, positions, tuple(self.starts))


def split(features: Tensor, layouts: Sequence[Layout]) -> list[VisualTokens]:
    """Cut a tower's output for a batch [ΣT, d] into the tokens of its images."""
    counts = [sum(p.h * p.w for p in layout if isinstance(p, Block)) for layout in layouts]
    if sum(counts) != features.shape[0]:
        raise ModelError(
            f"The vision tower gave {features.shape[0]} tokens instead of {sum(counts)}; use the reference path."
        )
    return [VisualTokens(f, None, layout) for f, layout in zip(torch.split(features, counts), layouts, strict=True)]
