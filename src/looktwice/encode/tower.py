"""Encode with the vision tower of a multimodal LLM: the vector is the mean of the visual tokens.

Images go one at a time. The model's own processor prepares each exactly as for a question about that image alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder
from looktwice.encode.pixels import presentable, resize_larger_side
from looktwice.models.processors import load_processor
from looktwice.models.weights import quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import ProcessorMixin


class TowerEncoder(BaseEncoder):
    """An encoder by the mean of all visual tokens of all tiles and views, without learned newlines. It reads no text.

    With `side`, the image's larger side is first resized to that many pixels (arXiv 2604.13268). For models that feed
    further layers (DeepStack), only the tokens of the first layer count.
    """

    auto = "AutoModelForImageTextToText"

    def __init__(self, *args: Any, side: int | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.side = side

    @cached_property
    def processor(self) -> ProcessorMixin:
        """Return the model's processor, read at first use."""
        return load_processor(self.checkpoint)

    def _key(self, image: Image) -> Hashable:
        return None

    def _images(self, images: list[Image]) -> Tensor:
        import torch

        return torch.stack([self._tokens(presentable(image)).float().mean(0) for image in images])

    def _tokens(self, image: Image) -> Tensor:
        import torch

        if self.side is not None:
            image = resize_larger_side(image, self.side)
        with quiet():  # transformers warns of images 1 or 3 pixels high
            prompt = self.processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
            inputs = self.processor(text=[prompt], images=[[image]], return_tensors="pt")
        wanted = {name: inputs[name] for name in self.processor.image_processor.model_input_names if name in inputs}
        found = self.model.get_image_features(**self.to_device(wanted)).pooler_output
        tokens = found if isinstance(found, torch.Tensor) else torch.cat(list(found))
        return _without_newlines(self.model, tokens.flatten(0, -2))


def _without_newlines(model: Any, tokens: Tensor) -> Tensor:
    newline = getattr(model.model, "image_newline", None)
    return tokens if newline is None else tokens[(tokens != newline).any(-1)]
