"""CLIP, SigLIP and SigLIP 2 (fixed size and NaFlex): images and text in one space."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder, log
from looktwice.encode.patches import Patches, patches_of, states_of
from looktwice.encode.pixels import LargerSide, Pixels
from looktwice.models.processors import load_tokenizer
from looktwice.models.weights import quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TextStyle:
    """The text input of a family: SigLIP's lower case and full window of 64 tokens, or the tokenizer's own default."""

    full_window: bool

    @property
    def description(self) -> str:
        """Return the style's name, for the table."""
        return "text=lower-case,full-window" if self.full_window else "text=own"


STYLES = {
    "clip": TextStyle(full_window=False),
    "metaclip_2": TextStyle(full_window=False),
    "siglip": TextStyle(full_window=True),
    "siglip2": TextStyle(full_window=True),
}


def dim_of(config: Any) -> int:
    """Return the length of the vectors of a configuration of these families."""
    if config.model_type in ("clip", "metaclip_2"):
        return int(config.projection_dim)
    return int(getattr(config.text_config, "projection_size", None) or config.text_config.hidden_size)


class ClipEncoder(BaseEncoder):
    """An encoder with an image tower and a text tower, each with its own projection."""

    reads_text = True

    def __init__(self, *args: Any, pixels: Pixels, config: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixels = pixels
        self.family = str(config.model_type)
        self.style = STYLES[self.family]
        self.stride = int(config.vision_config.patch_size)
        self.window = int(config.text_config.max_position_embeddings)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, read at first use."""
        return load_tokenizer(self.checkpoint)

    def _key(self, image: Image) -> Hashable:
        return self.pixels.key(image)

    def patches(self, images: list[Image]) -> list[Patches]:
        inputs = self.to_device(self.pixels.inputs(images))
        return patches_of(states_of(self.family, partial(self._outputs, inputs)), inputs, self.stride)

    def _outputs(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        extra = {"interpolate_pos_encoding": True} if isinstance(self.pixels, LargerSide) else {}
        return self.model.get_image_features(**inputs, **extra, **options)

    def _images(self, images: list[Image]) -> Tensor:
        vectors: Tensor = self._outputs(self.to_device(self.pixels.inputs(images))).pooler_output
        return vectors

    def _texts(self, texts: list[str]) -> Tensor:
        rows = self._sticky(texts) if self.style.full_window else self._padded(texts)
        vectors: Tensor = self.model.get_text_features(**self.to_device(rows)).pooler_output
        return vectors

    def _padded(self, texts: list[str]) -> dict[str, Tensor]:
        with quiet():
            self._count_truncated([len(ids) for ids in self.tokenizer(texts)["input_ids"]])
        options = {"padding": True, "truncation": True, "max_length": self.window, "return_tensors": "pt"}
        rows = self.tokenizer(texts, **options)
        return {name: rows[name] for name in ("input_ids", "attention_mask")}

    def _sticky(self, texts: list[str]) -> dict[str, Tensor]:
        """Tokenize as SigLIP was trained: lower case, no begin token, an end token on cut texts too, attended padding.

        The steps are written out, because the tokenizers published with SigLIP have different defaults.
        """
        import torch

        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        with quiet():
            found = self.tokenizer([text.lower() for text in texts], add_special_tokens=False)["input_ids"]
        self._count_truncated([len(ids) + 1 for ids in found])
        rows = [[*ids[: self.window - 1], end] for ids in found]
        return {"input_ids": torch.tensor([row + [pad] * (self.window - len(row)) for row in rows])}

    def _count_truncated(self, lengths: list[int]) -> None:
        longer = sum(length > self.window for length in lengths)
        if longer and not self.truncated:
            log.warning(
                "%s reads %d tokens of text and cuts longer texts; shorten them to use all of them.",
                self.info.name,
                self.window,
            )
        self.truncated += longer
