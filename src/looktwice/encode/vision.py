"""Encode with vision models of transformers: DINOv2, DINOv3, ViT, ConvNeXt, image towers of CLIP and SigLIP 1 and 2."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder
from looktwice.encode.patches import Patches, patches_of, states_of
from looktwice.encode.pixels import LargerSide, Pixels
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

POOLING = {  # the image's vector: the class token after the last norm, or the model's own pooling
    "dinov2": "class-token",
    "dinov2_with_registers": "class-token",
    "dinov3_vit": "class-token",
    "dinov3_convnext": "pooled",
    "vit": "class-token",
    "convnext": "pooled",
    "convnextv2": "pooled",
    "swin": "pooled",
    "clip_vision_model": "pooled",
    "siglip_vision_model": "pooled",
    "siglip2_vision_model": "pooled",
}
STRIDES = {"swin": 32, "dinov3_convnext": 32}
"""Pixels per token where they are not the `patch_size`: these halve their grid three times after patches of 4."""
_INTERPOLATES = {"vit", "clip_vision_model", "siglip_vision_model"}  # the others take any size without the option


def dim_of(config: Any) -> int:
    """Return the length of the vectors of a configuration of these families."""
    return int(getattr(config, "hidden_size", None) or config.hidden_sizes[-1])


class VisionEncoder(BaseEncoder):
    """An encoder with one vector per image. It reads no text."""

    def __init__(self, *args: Any, pixels: Pixels, config: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixels = pixels
        self.family = str(config.model_type)
        self.stride = STRIDES.get(self.family) or int(getattr(config, "patch_size", 1))

    def _key(self, image: Image) -> Hashable:
        return self.pixels.key(image)

    def patches(self, images: list[Image]) -> list[Patches]:
        inputs = self.to_device(self.pixels.inputs(images))
        return patches_of(states_of(self.family, partial(self._outputs, inputs)), inputs, self.stride)

    def _outputs(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        sized = isinstance(self.pixels, LargerSide) and self.family in _INTERPOLATES
        return self.model(**inputs, **({"interpolate_pos_encoding": True} if sized else {}), **options)

    def _images(self, images: list[Image]) -> Tensor:
        outputs = self._outputs(self.to_device(self.pixels.inputs(images)))
        if POOLING[self.family] == "pooled":
            if outputs.pooler_output is None:
                raise UsageError(
                    f"{self.info.name} was saved without its pooling head; choose a checkpoint that has it."
                )
            pooled: Tensor = outputs.pooler_output
            return pooled.flatten(1)
        first: Tensor = outputs.last_hidden_state[:, 0]
        return first
