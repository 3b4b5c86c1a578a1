"""Read what a camera wrote into an image file: date, camera, lens, place and keywords; and the file's time and size.

A key that a file does not state, or states in no readable form, is absent. Nothing here raises: a damaged EXIF block
never stops an image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources.decoding import worker
from looktwice.sources.decoding.pillow import pillow
from looktwice.sources.formats import box_kind
from looktwice.sources.uri import parse_uri

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

COLUMNS: dict[str, type] = {
    "taken": str,
    "camera": str,
    "lens": str,
    "latitude": float,
    "longitude": float,
    "keywords": str,
    "file_time": str,
    "file_size": int,
}
"""The metadata keys, and the types of their columns."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF")
_EXIF, _GPS = 0x8769, 0x8825
_MAKE, _MODEL, _CHANGED, _TAKEN, _LENS = 0x010F, 0x0110, 0x0132, 0x9003, 0xA434
_KEYWORDS = (2, 25)
_MOST = 2000  # characters of one value


def metadata(data: bytes, uri: str) -> dict[str, Any]:
    """Return the COLUMNS that an image file states; HEIF and AVIF are opened in a process of their own."""
    found = _file(data, uri)
    with suppress(MediaError):
        found |= worker.exif(data) if box_kind(data) in ("HEIF", "AVIF") else from_bytes(data)
    return found


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return what the camera wrote, in this process."""
    if box_kind(data) == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        image = pillow().open(io.BytesIO(data), formats=_FORMATS)
        exif = image.getexif()
        inner, gps = exif.get_ifd(_EXIF), exif.get_ifd(_GPS)
    except Exception:  # hostile data makes parsers raise anything
        return {}
    readers: Mapping[str, Callable[[], Any]] = {
        "taken": lambda: _time(inner.get(_TAKEN) or exif.get(_CHANGED)),
        "camera": lambda: _camera(_text(exif.get(_MAKE)), _text(exif.get(_MODEL))),
        "lens": lambda: _text(inner.get(_LENS)),
        "latitude": lambda: _degrees(gps.get(2), gps.get(1), "S", 90),
        "longitude": lambda: _degrees(gps.get(4), gps.get(3), "W", 180),
        "keywords": lambda: _keywords(image),
    }
    found = {name: _read(reader) for name, reader in readers.items()}
    return {name: value for name, value in found.items() if value not in (None, "")}


def _file(data: bytes, uri: str) -> dict[str, Any]:
    found: dict[str, Any] = {"file_size": len(data)}
    with suppress(MediaError, OSError):
        if uri.startswith("file:") and "#" not in uri:
            changed = os.stat(parse_uri(uri).path).st_mtime
            found["file_time"] = datetime.fromtimestamp(int(changed), UTC).isoformat().replace("+00:00", "Z")
    return found


def _read(reader: Callable[[], Any]) -> Any:
    try:
        return reader()
    except Exception:  # values are as hostile as the rest of the file
        return None


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode()[:_MOST].split())


def _time(value: Any) -> str:
    """Return EXIF's "2024:06:01 12:00:00" as 2024-06-01T12:00:00; the camera's own clock, without a zone."""
    return datetime.strptime(_text(value)[:19], "%Y:%m:%d %H:%M:%S").isoformat()


def _camera(make: str, model: str) -> str:
    return model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()


def _degrees(value: Any, half: Any, negative: str, most: int) -> float | None:
    degrees, minutes, seconds = (float(part) for part in value)
    found = degrees + minutes / 60 + seconds / 3600
    if not 0 <= found <= most:
        return None
    return round(-found if _text(half).upper().startswith(negative) else found, 7)


def _keywords(image: ImageFile) -> str:
    """Return the IPTC keywords, separated by commas."""
    from PIL import IptcImagePlugin

    found = (IptcImagePlugin.getiptcinfo(image) or {}).get(_KEYWORDS, [])
    many = found if isinstance(found, list) else [found]
    return ", ".join(filter(None, map(_text, many)))[:_MOST]
