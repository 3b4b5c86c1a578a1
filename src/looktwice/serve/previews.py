"""Make small images of items, once each."""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from cachetools import LRUCache

from looktwice.errors import MediaError
from looktwice.serve.problems import Problem
from looktwice.sources import Urls, images, read_uri
from looktwice.store import TableReader

if TYPE_CHECKING:
    from PIL.Image import Image

    from looktwice.serve.service import Service
    from looktwice.serve.tables import ServedTable

CACHE_BYTES = 1 << 26
WIDTHS = (160, 320, 640, 1280, 2048)
_cache: LRUCache[tuple[str, str, int], bytes] = LRUCache(CACHE_BYTES, getsizeof=len)
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Preview:
    """A small image as WebP, and the hash of the item that it shows."""

    data: bytes
    sha256: str
    width: int

    @property
    def etag(self) -> str:
        """Return the value that changes with the image."""
        return f'"{self.sha256[:16]}-{self.width}"'


def preview(service: Service, served: ServedTable, id_: str, width: int) -> Preview:
    """Return the preview of an item, its width rounded up to one of WIDTHS. Raises Problem (404, 409)."""
    width = next(w for w in WIDTHS if w >= width)
    rows = served.reader().lookup([id_], ["id", "uri", "sha256", "width"])
    if not rows:
        raise Problem(404, "unknown_item", "The table has no item of this id.", "id")
    row = rows[0]
    if not row["width"]:
        raise Problem(404, "no_image", "The item has no image.", "id")
    key = (served.name, row["sha256"], width)  # a stranger's table may show anything under the hash of another image
    with _lock:
        data = _cache.get(key)
    if data is None:
        data = _made(service, served.reader(), row, width)
        with _lock:
            if len(data) <= CACHE_BYTES // 8:
                _cache[key] = data
    return Preview(data, row["sha256"], width)


def _made(service: Service, table: TableReader, row: Any, width: int) -> bytes:
    """Return an image as WebP, made from the table's own preview if that is large enough or nothing else is left."""
    stored = table.preview(row["id"], row["sha256"])
    usable = None if stored is None else _decoded(stored)
    image = None
    if usable is None or width > table.manifest.previews:
        image = _original(service, row, demanded=usable is None)
    if image is None and usable is not None:
        image = usable
        if is_webp(stored) and image.width <= width and image.height <= 4 * width:
            return bytes(stored)  # small enough as it is
    assert image is not None
    small = image.convert("RGB")
    small.thumbnail((width, 4 * width))
    out = io.BytesIO()
    small.save(out, "WEBP", quality=80, method=2)
    return out.getvalue()


def is_webp(data: bytes | None) -> TypeGuard[bytes]:
    """Return whether bytes are a WebP; a stranger's table may hold anything."""
    return data is not None and data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _decoded(stored: bytes) -> Image | None:
    with suppress(MediaError):  # a stranger's table
        return images.load(stored)[0]
    return None


def _original(service: Service, row: Any, demanded: bool) -> Image | None:
    """Return the image itself, or None if it cannot be read. Raises Problem (409) then, if it is demanded."""
    urls: Urls = "public" if service.settings.allow_urls else "refused"
    try:
        return images.load(read_uri(row["uri"], urls=urls, sha256=row["sha256"]))[0]
    except MediaError as error:
        if not demanded:
            return None
        raise Problem(409, "image_missing", f"The item's image cannot be read ({error.reason}).", "id") from None
