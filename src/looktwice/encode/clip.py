"""CLIP, SigLIP and SigLIP 2 (fixed size and NaFlex): pictures and text in one space."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder, log
from looktwice.encode.pixels import LargerSide, Pixels
from looktwice.errors import ModelError
from looktwice.processors import load_tokenizer
from looktwice.weights import quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How a family was taught to read: whether texts are padded to the full window, and put in lower case first."""

    full_window: bool
    lower: bool

    @property
    def description(self) -> str:
        """By name, for the table."""
        return f"text={'lower' if self.lower else 'as-is'},{'full-window' if self.full_window else 'padded'}"


STYLES = {
    "clip": TextStyle(full_window=False, lower=False),
    "metaclip_2": TextStyle(full_window=False, lower=False),
    "siglip": TextStyle(full_window=True, lower=True),
    "siglip2": TextStyle(full_window=True, lower=True),
}


def dim_of(config: Any) -> int:
    """Length of the vectors that a configuration of one of these families gives."""
    if config.model_type in ("clip", "metaclip_2"):
        return int(config.projection_dim)
    return int(getattr(config.text_config, "projection_size", None) or config.text_config.hidden_size)


class ClipEncoder(BaseEncoder):
    """Pictures through the image tower, text through the text tower, each with its own projection."""

    reads_text = True

    def __init__(self, *args: Any, pixels: Pixels, config: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixels = pixels
        self.style = STYLES[config.model_type]
        self.window = int(config.text_config.max_position_embeddings)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, read at first use."""
        tokenizer = load_tokenizer(self.checkpoint)
        tokenizer.padding_side = "right"  # both families read from the first position on
        return tokenizer

    def _key(self, image: Image) -> Hashable:
        return self.pixels.key(image)

    def _pictures(self, images: list[Image]) -> Tensor:
        inputs = self.to_device(self.pixels.inputs(images))
        extra = {"interpolate_pos_encoding": True} if isinstance(self.pixels, LargerSide) else {}
        vectors: Tensor = self.model.get_image_features(**inputs, **extra).pooler_output
        return vectors

    def _texts(self, texts: list[str]) -> Tensor:
        if self.style.lower:
            texts = [text.lower() for text in texts]
        self._count_truncated(texts)
        inputs = self.tokenizer(
            texts,
            padding="max_length" if self.style.full_window else True,
            truncation=True,
            max_length=self.window,
            return_tensors="pt",
        )
        if (inputs["input_ids"] != self.tokenizer.eos_token_id).all(1).any():
            raise ModelError(
                f"The tokenizer of {self.checkpoint.name!r} does not end texts with its end mark; get it anew."
            )
        # SigLIP attends to its padding, so its mask is left out
        names = ["input_ids"] if self.style.full_window else ["input_ids", "attention_mask"]
        vectors: Tensor = self.model.get_text_features(**self.to_device({n: inputs[n] for n in names})).pooler_output
        return vectors

    def _count_truncated(self, texts: list[str]) -> None:
        with quiet():
            lengths = [len(ids) for ids in self.tokenizer(texts)["input_ids"]]
        longer = sum(length > self.window for length in lengths)
        if longer and not self.truncated:
            log.warning("%s reads %d tokens of text; what is longer is cut.", self.info.name, self.window)
        self.truncated += longer
