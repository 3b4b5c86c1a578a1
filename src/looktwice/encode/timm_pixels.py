"""Prepare images as timm does for evaluation, in Pillow and NumPy: the same pixels without torchvision.

center    the shorter side becomes own / crop_pct pixels, the middle is kept: what most checkpoints ask for
squash    both sides become that long, the aspect is lost
border    the longer side becomes that long, the rest is filled with the mean colour
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

from looktwice.encode.pixels import presentable

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TimmPixels:
    """A preparation that resizes to `scaled` pixels by `mode`, then cuts the middle `side` × `side` pixels."""

    side: int
    scaled: int
    mode: str
    filter: Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> TimmPixels:
        """Read the settings that timm resolved for a model (`timm.data.resolve_model_data_config`)."""
        from PIL.Image import Resampling

        side = int(settings["input_size"][-1])
        scaled = floor(side / float(settings["crop_pct"]))
        chosen = Resampling[str(settings["interpolation"]).upper()]
        mean, std = tuple(settings["mean"]), tuple(settings["std"])
        return cls(side, scaled, str(settings["crop_mode"]), chosen, mean, std)

    @property
    def description(self) -> str:
        """Return mode and sizes by name, for the table."""
        return f"pictures=timm-{self.mode}-{self.scaled}@{self.side}"

    def key(self, image: Image) -> Hashable:
        """Return one key for all images, since the result's size is fixed."""
        return None

    def inputs(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """Resize, cut, scale to [0, 1], normalise, stack: pixel_values [n, 3, side, side]."""
        import torch

        return {"pixel_values": torch.stack([self._one(presentable(image)) for image in images])}

    def _one(self, image: Image) -> Tensor:
        import numpy as np
        import torch

        resized = image.resize(resized_size(image.size, self.scaled, self.mode), self.filter)
        fill = tuple(round(255 * value) for value in self.mean) if self.mode == "border" else (0, 0, 0)
        scaled = np.asarray(centre(resized, self.side, fill), np.float32) / 255
        normal = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normal.transpose(2, 0, 1).copy())


def resized_size(size: tuple[int, int], scaled: int, mode: str) -> tuple[int, int]:
    """Return (width, height) before the cut.

    >>> [resized_size((120, 71), 64, mode) for mode in ("center", "squash", "border")]
    [(108, 64), (64, 64), (64, 38)]
    """
    width, height = size
    if mode == "squash":
        return scaled, scaled
    if mode == "border":
        ratio = max(width, height) / scaled
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return scaled, int(scaled * height / width)
    return int(scaled * width / height), scaled


def centre(image: Image, side: int, fill: tuple[int, ...]) -> Image:
    """Cut the middle `side` × `side` pixels out; pixels outside of the image are `fill`.

    Half a pixel of margin goes to the even side, as torchvision rounds it; padding keeps the larger half at the end.
    """
    left, top = _margin(image.width, side), _margin(image.height, side)
    if min(image.size) >= side:
        return image.crop((left, top, left + side, top + side))
    from PIL import Image as images

    canvas = images.new("RGB", (side, side), fill)
    canvas.paste(image, (-left, -top))
    return canvas


def _margin(length: int, side: int) -> int:
    return round((length - side) / 2) if length >= side else -((side - length) // 2)
