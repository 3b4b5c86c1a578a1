"""Turn images into what a request carries: scaled by us, so that no server chooses the size, and without loss."""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from looktwice.errors import ModelError
from looktwice.score.local.lru import Lru
from looktwice.score.local.mllm import scaled
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SIDE = 1536
"""Longer side of the largest image that is sent without a --resolution; larger ones are scaled down to it."""

KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class DataUrl:
    """One image as a data URL, and the SHA-256 of its bytes, which covers content and size."""

    url: str
    sha256: str


class ImageEncoder:
    """Encodes images as PNG at the size that `resolution` sets, and keeps the last ones."""

    def __init__(self, resolution: int | None) -> None:
        self.resolution = resolution
        self._kept: Lru[DataUrl] = Lru(1 << 16, KEPT_BYTES, lambda one: len(one.url))

    @property
    def regime(self) -> str:
        """Return the rule for sizes, for manifests and keys."""
        return f"png@{self.resolution}" if self.resolution else f"png<={MOST_SIDE}"

    def encode(self, item: Item) -> DataUrl:
        """Return an item's image. Raises ModelError for an item without one."""
        if item.image is None:
            raise ModelError(f"Item {item.id!r} has no image to send; use --codec images, or give the image.")
        if item.sha256 is None:
            return _data_url(self._sized(item.image))
        image = item.image
        return self._kept.obtain((item.sha256, image.size), lambda: _data_url(self._sized(image)))

    def _sized(self, image: Image) -> Image:
        if self.resolution is not None:
            return scaled(image, self.resolution)
        return scaled(image, MOST_SIDE) if max(image.size) > MOST_SIDE else image


def _data_url(image: Image) -> DataUrl:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    data = buffer.getvalue()
    return DataUrl("data:image/png;base64," + base64.b64encode(data).decode("ascii"), hashlib.sha256(data).hexdigest())


def image_part(encoded: DataUrl, with_id: bool) -> dict[str, Any]:
    """Return one image as a part of a chat message.

    `with_id` sends the hash of its content as its `uuid`: vLLM answers for the image that it first saw under an id,
    whatever the request holds, so nothing else may be one.
    """
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": encoded.url}}
    return part | ({"uuid": encoded.sha256} if with_id else {})
