"""Turn images into model inputs: in the checkpoint's own way, or with the larger side resized to N pixels.

This module knows Pillow images and tensors, not models. Images are RGB and upright, as `images.load` returns them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers.image_processing_utils import BaseImageProcessor

THINNEST = 100  # processors turn an image of 1 : 60,000 into gigabytes, or refuse it, so only its middle is used


class Pixels(Protocol):
    """A way to turn images into the inputs of one model."""

    @property
    def description(self) -> str:
        """Return the description that a table stores: vectors of images prepared in another way are not comparable."""
        ...

    def key(self, image: Image) -> Hashable:
        """Return the batch key of an image: images with equal keys can be stacked into one batch."""
        ...

    def inputs(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Return model inputs for images with equal keys, on the CPU; pixel_values float32 [n, …]."""
        ...


@dataclass(frozen=True, slots=True)
class OwnPixels:
    """The checkpoint's own image processor; `options` override its settings."""

    processor: BaseImageProcessor
    description: str
    options: dict[str, Any]

    def key(self, image: Image) -> Hashable:
        """Return None if the result's size is fixed, else the image's size."""
        size = getattr(self.processor, "size", None) or {}
        cropped = getattr(self.processor, "do_center_crop", False)
        fixed = cropped or hasattr(self.processor, "max_num_patches") or _get(size, "height")
        return None if fixed else image.size

    def inputs(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Run the image processor."""
        prepared = [presentable(image) for image in images]
        return dict(self.processor(images=prepared, return_tensors="pt", **self.options))


@dataclass(frozen=True, slots=True)
class LargerSide:
    """A resize of the larger side to `side` pixels, also for smaller images, with zero padding to whole patches.

    The steps of ILIAS (ilias-vrg/ilias `LargeSideResize`, `MultiplierPadding`): Pillow's bicubic filter, sides
    truncated to whole pixels, padding after normalisation and shared by both ends.
    """

    side: int
    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def description(self) -> str:
        """Return side and patch by name, for the table."""
        return f"larger-side={self.side},patch={self.patch}"

    def key(self, image: Image) -> Hashable:
        """Return the numbers of patches after resizing and padding."""
        width, height = larger_side(presentable(image).size, self.side)
        return -(-width // self.patch), -(-height // self.patch)

    def inputs(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Resize, scale to [0, 1], normalise, pad, stack: pixel_values [n, 3, h, w]."""
        import torch

        return {"pixel_values": torch.stack([self._one(presentable(image)) for image in images])}

    def _one(self, image: Image) -> Tensor:
        import numpy as np
        import torch
        from torch.nn.functional import pad

        resized = resize_larger_side(image, self.side)
        scaled = np.asarray(resized, np.float32) / 255
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        tensor = torch.from_numpy(normal.transpose(2, 0, 1).copy())
        left, top = (-resized.width % self.patch, -resized.height % self.patch)
        return pad(tensor, (left // 2, left - left // 2, top // 2, top - top // 2))


def larger_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (width, height) with the larger one equal to `side`, the other truncated to a whole pixel, at least 1.

    >>> larger_side((400, 300), 512), larger_side((10, 4000), 512)
    ((512, 384), (1, 512))
    """
    width, height = size
    aspect = height / width
    if aspect <= 1:
        return side, max(1, int(side * aspect))
    return max(1, int(side / aspect)), side


def resize_larger_side(image: Image, side: int) -> Image:
    """Resize with Pillow's bicubic filter so that the larger side is `side` pixels; the aspect is kept."""
    from PIL.Image import Resampling

    return image.resize(larger_side(image.size, side), Resampling.BICUBIC)


def presentable(image: Image) -> Image:
    """Return the image as RGB; crop one thinner than 1 : THINNEST to its middle, which is exactly that thin."""
    if image.mode != "RGB":
        image = image.convert("RGB")
    width, height = image.size
    wide, high = min(width, THINNEST * height), min(height, THINNEST * width)
    if (wide, high) == (width, height):
        return image
    left, top = (width - wide) // 2, (height - high) // 2
    return image.crop((left, top, left + wide, top + high))


def _get(size: Any, name: str) -> Any:
    return size.get(name) if hasattr(size, "get") else getattr(size, name, None)
