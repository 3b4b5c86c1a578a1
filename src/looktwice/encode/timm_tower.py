"""Encode with timm towers such as Perception Encoder (PE-Core). Needs the extra `timm`, which brings torchvision."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder
from looktwice.encode.patches import Patches, patches_of
from looktwice.encode.pixels import LargerSide, Pixels
from looktwice.encode.timm_pixels import TimmPixels
from looktwice.errors import MissingDependency
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.weights import plain_errors

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_HEAD_IS_PROJECTION = ("clip", "pe_core")  # elsewhere the head is a classifier; the rule of ilias-vrg/ilias


def keeps_head(architecture: str) -> bool:
    """Return whether the head is the projection into the space of comparison, not a classifier."""
    return any(part in architecture for part in _HEAD_IS_PROJECTION)


def require_timm(name: str) -> None:
    """Raise MissingDependency unless timm and torchvision are installed."""
    for package in ("timm", "torchvision"):
        if find_spec(package) is None:
            raise MissingDependency(package, "timm", f"The encoder {name}")


class TimmEncoder(BaseEncoder):
    """An encoder with one vector per image: the model's own pooling and projection, if any. It reads no text."""

    def __init__(self, *args: Any, pixels: Pixels, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixels = pixels

    @cached_property
    def model(self) -> Any:
        """Return the weights, read at first use."""
        with plain_errors(self.checkpoint, "weights"):
            model = create(self.checkpoint, pretrained=True, any_size=isinstance(self.pixels, LargerSide))
        return model.requires_grad_(False).eval().to(self.placement.device, self.placement.torch_dtype)

    def _key(self, image: Image) -> Hashable:
        return self.pixels.key(image)

    def patches(self, images: list[Image]) -> list[Patches]:
        if not hasattr(self.model, "num_prefix_tokens"):  # not a transformer over patches
            return super().patches(images)
        inputs = self.to_device(self.pixels.inputs(images))
        return patches_of(self.model.forward_features(inputs["pixel_values"]), inputs, _patch(self.model))

    def _images(self, images: list[Image]) -> Tensor:
        vectors: Tensor = self.model(self.to_device(self.pixels.inputs(images))["pixel_values"])
        return vectors


def describe(checkpoint: Checkpoint, side: int | None) -> tuple[int, int, Pixels]:
    """Return the tower's own image size in pixels, the length of its vectors, and its preparation of images."""
    with plain_errors(checkpoint, "configuration"):
        from timm.data import resolve_model_data_config

        model = create(checkpoint, pretrained=False)
        settings = resolve_model_data_config(model)
        own = TimmPixels.of(settings)
    dim = int(model.num_classes or model.num_features)
    if side is None or side == own.side:
        return own.side, dim, own
    return own.side, dim, LargerSide(side, _patch(model), own.mean, own.std)


def _patch(model: Any) -> int:
    return int(model.patch_embed.patch_size[0]) if hasattr(model, "patch_embed") else 1


def create(checkpoint: Checkpoint, *, pretrained: bool, any_size: bool = False) -> Any:
    """Build the timm model of a folder; `any_size` lets a transformer take images of other sizes than its own."""
    import timm

    options: dict[str, Any] = {} if keeps_head(str(checkpoint.config["architecture"])) else {"num_classes": 0}
    where = f"local-dir:{checkpoint.source}"
    if any_size and hasattr(timm.create_model(where, pretrained=False, **options), "patch_embed"):
        options["dynamic_img_size"] = True
    return timm.create_model(where, pretrained=pretrained, **options)
