"""Hold a loaded multimodal LLM with its processor, and describe both for a table."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from looktwice.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Mllm:
    """A model in evaluation mode and its processor. `resolution`: images are scaled to this longer side first."""

    name: str
    revision: str
    model: Any
    processor: Any
    resolution: int | None = None

    def scale(self, image: Image) -> Image:
        """Scale an image up or down to a longer side of `resolution`; the other side is rounded down.

        2604.13268, image preparation.
        """
        return image if self.resolution is None else scaled(image, self.resolution)

    @property
    def resampler(self) -> str:
        """Return the library that scales images: torchvision if the processor uses it, else Pillow."""
        return "torchvision" if getattr(self.processor.image_processor, "backend", "") == "torchvision" else "Pillow"

    @property
    def preprocessing(self) -> str:
        """Return name and hash of everything that happens to an image before the tower."""
        processor = self.processor.image_processor
        kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
        settings = {k: v for k, v in processor.to_dict().items() if not k.startswith("_") and "type" not in k}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return f"{kind}:{digest}" + (f"@{self.resolution}" if self.resolution else "")


def scaled(image: Image, longer: int) -> Image:
    """Scale an image up or down to this longer side; the other side is rounded down."""
    if max(image.size) == longer:
        return image
    width, height = (max(1, side * longer // max(image.size)) for side in image.size)
    return image.resize((width, height))


def keep_budget(processor: Any, resolution: int) -> None:
    """Stop a native-resolution processor from scaling an image whose longer side is already `resolution`."""
    if resolution < 1:
        raise UsageError("The resolution is the longer side in pixels; give a number above zero.")
    patch = processor.image_processor.patch_size * processor.image_processor.merge_size
    processor.image_processor.size = {"shortest_edge": patch**2, "longest_edge": (resolution + patch) ** 2}
