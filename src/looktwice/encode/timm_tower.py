"""timm towers such as Perception Encoder (PE-Core). Needs the extra `timm`, which brings torchvision."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from looktwice.checkpoints import Checkpoint
from looktwice.encode.base import BaseEncoder
from looktwice.encode.pixels import LargerSide, OwnPixels, Pixels
from looktwice.errors import MissingDependency
from looktwice.weights import plain_errors

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_HEAD_IS_PROJECTION = ("clip", "pe_core")  # elsewhere the head is a classifier; the rule of ilias-vrg/ilias


def keeps_head(architecture: str) -> bool:
    """Whether the head is the projection into the space of comparison, not a classifier."""
    return any(part in architecture for part in _HEAD_IS_PROJECTION)


def require_timm(name: str) -> None:
    """Raise MissingDependency unless timm and torchvision are installed."""
    for package in ("timm", "torchvision"):
        if find_spec(package) is None:
            raise MissingDependency(package, "timm", f"The encoder {name}")


class TimmEncoder(BaseEncoder):
    """One vector per picture: the model's own pooling and, where it has one, projection; reads no text."""

    def __init__(self, *args: Any, pixels: Pixels, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pixels = pixels

    @cached_property
    def model(self) -> Any:
        """The weights, read at first use."""
        with plain_errors(self.checkpoint, "weights"):
            model = create(self.checkpoint, pretrained=True, any_size=isinstance(self.pixels, LargerSide))
        return model.requires_grad_(False).eval().to(self.placement.device, self.placement.torch_dtype)

    def _key(self, image: Image) -> Hashable:
        return self.pixels.key(image)

    def _pictures(self, images: list[Image]) -> Tensor:
        vectors: Tensor = self.model(self.to_device(self.pixels.inputs(images))["pixel_values"])
        return vectors


def describe(checkpoint: Checkpoint, side: int | None) -> tuple[int, int, Pixels]:
    """Return the size the tower was made for, the length of its vectors, and how pictures are prepared."""
    with plain_errors(checkpoint, "configuration"):
        model = create(checkpoint, pretrained=False)
    settings = model.pretrained_cfg
    own, dim = int(settings["input_size"][-1]), int(model.num_classes or model.num_features)
    if side is None or side == own:
        return own, dim, OwnPixels(_image_processor(settings, own), f"pictures=own@{own}", {})
    return own, dim, LargerSide(side, _patch(model), tuple(settings["mean"]), tuple(settings["std"]))


def _image_processor(settings: Mapping[str, Any], own: int) -> Any:
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessorPil

    square = {"height": own, "width": own}
    cropped = settings.get("crop_mode", "center") != "squash"
    return CLIPImageProcessorPil(
        size={"shortest_edge": int(own / float(settings.get("crop_pct") or 1))} if cropped else square,
        do_center_crop=cropped,
        crop_size=square,
        resample=getattr(Resampling, str(settings["interpolation"]).upper(), Resampling.BICUBIC),
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )


def _patch(model: Any) -> int:
    return int(model.patch_embed.patch_size[0]) if hasattr(model, "patch_embed") else 1


def create(checkpoint: Checkpoint, *, pretrained: bool, any_size: bool = False) -> Any:
    """Build the timm model of a folder; `any_size` lets a transformer take pictures of sizes it was not made for."""
    import timm

    options: dict[str, Any] = {} if keeps_head(str(checkpoint.config["architecture"])) else {"num_classes": 0}
    where = f"local-dir:{checkpoint.source}"
    if any_size and hasattr(timm.create_model(where, pretrained=False, **options), "patch_embed"):
        options["dynamic_img_size"] = True
    return timm.create_model(where, pretrained=pretrained, **options)
