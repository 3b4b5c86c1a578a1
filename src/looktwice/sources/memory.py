"""Read items that a program hands over: an id, an image in any form, a text, metadata.

    {"id": "sku-1", "image": image, "text": "red shoe", "metadata": {"price": 19.5}}

`image` is a path, a PIL image, a NumPy array (h, w[, 3 or 4]; uint8, or floats from 0 to 1), bytes, a binary file or a
data URI. A problem of one item is a MediaError about this item only.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from looktwice.errors import MediaError
from looktwice.sources import images
from looktwice.sources.reading import WHOLE, Reading
from looktwice.sources.records import MAX_DEPTH, Source, text_is_clean
from looktwice.sources.uri import MAX_BYTES, MEMORY, file_uri, is_url
from looktwice.types import text_is_utf8

if TYPE_CHECKING:
    from PIL.Image import Image

KEYS = ("id", "image", "text", "metadata")


@dataclass(frozen=True, slots=True)
class MemorySource(Source):
    """An item whose image is in memory: as the bytes of a file, or as upright RGB pixels."""

    data: bytes = b""
    pixels: Image | None = None

    def read(self) -> bytes:
        """Return the bytes that identify this item; pixels are named by kind and size, and follow row by row."""
        if not self.has_image:
            return (self.text or "").encode()
        if self.pixels is None:
            return self.data
        return b"RGB %d %d\n" % self.pixels.size + self.pixels.tobytes()

    def decode(self, data: bytes, reading: Reading = WHOLE) -> tuple[Image, images.Size]:
        """Return the image and its size."""
        if self.pixels is None:
            return images.load(data, reading)
        return images.reduced(self.pixels, reading), self.pixels.size


def item_id(value: Mapping[str, Any]) -> str:
    """Return the id of an item; a whole number counts as text. Raises MediaError."""
    if not isinstance(value, Mapping):
        raise MediaError("bad-record", f"an item is a dict with the keys {', '.join(KEYS)}, not {_kind(value)}")
    found = value.get("id")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not found or not text_is_utf8(found):
        raise MediaError("bad-record", f'"id" must be a non-empty text or a whole number, not {value.get("id")!r:.60}')
    return found


def check_record(value: Mapping[str, Any]) -> None:
    """Raise MediaError for an unknown key, and for text or metadata that cannot be stored."""
    if odd := [key for key in value if key not in KEYS]:
        raise MediaError("bad-record", f"the key {odd[0]!r:.60} is unknown; put further values into metadata")
    text, metadata = value.get("text"), value.get("metadata")
    if text is not None and not isinstance(text, str):
        raise MediaError("bad-record", f'"text" must be a text, not {_kind(text)}')
    if metadata is not None and not isinstance(metadata, Mapping):
        raise MediaError("bad-record", f'"metadata" must be a dict, not {_kind(metadata)}')
    try:
        clean = text_is_clean(text) and text_is_clean(dict(metadata or {}))
    except RecursionError:
        raise MediaError("bad-record", f"its metadata is nested deeper than {MAX_DEPTH} levels") from None
    if not clean:
        raise MediaError("bad-record", "it contains a lone surrogate; write it again as valid UTF-8")


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with NumPy's numbers as numbers and dates as ISO texts, which sort like dates."""
    return {key: _plain(value) for key, value in metadata.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    return value.isoformat() if hasattr(value, "isoformat") else value


def memory_uri(name: str) -> str:
    """Return the uri of an item whose bytes have no place.

    >>> memory_uri("sku 1#é")
    'memory:sku%201%23%C3%A9'
    """
    return MEMORY + quote(name, safe="/!$&'()*+,;=:@-._~")


def memory_source(name: str, image: Any, text: str | None, metadata: Mapping[str, Any]) -> Source:
    """Return a future item. Raises MediaError for an image in no known form."""
    uri = memory_uri(name)
    if image is None:
        return MemorySource(name, uri, "", text, metadata, has_image=False)
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if isinstance(path, str) and path.startswith("data:"):
            return MemorySource(name, uri, "", text, metadata, data=_data_uri(path))
        if not path or "\0" in os.fsdecode(path):
            raise MediaError("bad-record", f"the path of its image is {path!r:.60}; pass the path of a file")
        if isinstance(path, str) and is_url(path):
            raise MediaError("url-refused", f"{path} is a URL; fetch it and pass its bytes")
        return Source(name, file_uri(path), "", text, metadata, member=os.fsdecode(path))
    if isinstance(image, bytes | bytearray | memoryview):
        return MemorySource(name, uri, "", text, metadata, data=bytes(image))
    if hasattr(image, "read"):
        return MemorySource(name, uri, "", text, metadata, data=_read(image))
    return MemorySource(name, uri, "", text, metadata, pixels=pixels(image))


def pixels(image: Any) -> Image:
    """Return a PIL image or an array as upright RGB. Raises MediaError."""
    from PIL import Image

    return images.upright(image if isinstance(image, Image.Image) else _from_array(image))


def _from_array(array: Any) -> Image:
    import numpy as np
    from PIL import Image

    if not isinstance(array, np.ndarray):
        kinds = "a path, a PIL image, a NumPy array, bytes, a binary file or a data URI"
        raise MediaError("bad-record", f'"image" is {_kind(array)}; pass {kinds}')
    shown = f"an array of shape {array.shape} and type {array.dtype}"
    if not array.size:
        raise MediaError("empty", f"{shown} has no pixels")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise MediaError("bad-record", f"{shown} is not an image; pass (h, w), (h, w, 3) or (h, w, 4)")
    if array.shape[0] * array.shape[1] > images.MAX_PIXELS:
        raise MediaError("too-large", f"{shown}; the limit is {images.MAX_PIXELS:,} pixels")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise MediaError("bad-record", f"{shown} holds values outside 0 to 1, or NaN; scale them")
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise MediaError("bad-record", f"{shown} is not an image; pass uint8, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))


def _data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise MediaError("bad-record", "its data URI is not data:image/…;base64,…; write it so, or pass bytes")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("bad-record", "its data URI is cut or not base64; pass all of it") from None


def _read(file: Any) -> bytes:
    """Read a file from its beginning, so that one that was read before can be passed again."""
    if getattr(file, "seekable", lambda: False)():
        file.seek(0)
    data = file.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise MediaError("bad-record", "its file is open for text; open it in binary mode")
    if len(data) > MAX_BYTES:
        raise MediaError("too-large", f"more than {MAX_BYTES:,} bytes")
    return data


def _kind(value: object) -> str:
    return type(value).__name__
