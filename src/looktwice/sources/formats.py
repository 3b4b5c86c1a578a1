"""List the kinds of files that hold images, and recognise them by their first bytes.

A kind may need an extra: an optional package, installed with `pip install 'looktwice[EXTRA]'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from looktwice.errors import MediaError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
"""What every installation reads."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A kind of files that only an optional package reads. `parts`: one file holds several images."""

    kind: str
    extra: str
    package: str
    suffixes: frozenset[str]
    parts: bool = False

    @property
    def installed(self) -> bool:
        """Return whether the package can be imported."""
        return find_spec(self.package) is not None

    @property
    def install(self) -> str:
        """Return the command that installs it."""
        return f"pip install 'looktwice[{self.extra}]'"

    @property
    def reason(self) -> str:
        """Return the reason word of files that need this extra."""
        return f"needs-{self.extra}"

    def missing(self) -> MediaError:
        """Return the failure of a file that needs this extra."""
        return MediaError(self.reason, f"it is {self.kind}; install its reader with: {self.install}")


JXL = Extra("JPEG XL", "jxl", "pillow_jxl", frozenset({".jxl"}))
RAW = Extra(
    "a camera's raw file",
    "raw",
    "rawpy",
    frozenset(
        {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef"}
        | {".srw", ".3fr", ".erf", ".kdc", ".dcr", ".mrw", ".x3f", ".iiq", ".mef", ".mos", ".rwl"}
    ),
)
PDF = Extra("a PDF", "pdf", "pypdfium2", frozenset({".pdf"}), parts=True)
VIDEO = Extra(
    "a video",
    "video",
    "av",
    frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".mts", ".m2ts", ".wmv"}),
    parts=True,
)
EXTRAS = (JXL, RAW, PDF, VIDEO)

BASE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".hif"}
)
SUFFIXES = BASE_SUFFIXES | JXL.suffixes | RAW.suffixes
"""Suffixes of files that hold one image."""

NEEDS = {extra.reason: f"the file is {extra.kind}, which the extra {extra.extra!r} reads" for extra in EXTRAS}
"""Reason words of files that lack their extra: they are skipped, and not counted as failures."""

BY_SUFFIX = {suffix: extra for extra in EXTRAS for suffix in extra.suffixes}

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n"
MAGIC = (JPEG, PNG, b"GIF87a", b"GIF89a")
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_RAW = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})
_DNG_VERSION, _MAKE, _SUB_IFDS, _SUBFILE = 50706, 271, 330, 254

_OTHERS = {
    b"%!PS": "PostScript",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}


def begins_like_image(head: bytes) -> bool:
    """Return whether a file that starts with `head` (at least 24 bytes) may be an image that can be read."""
    return (
        head.startswith((*MAGIC, *TIFF, b"BM", *_JXL, *_RAW))
        or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")
        or head[4:8] == b"ftyp"
    )


def box_kind(data: bytes) -> str:
    """Return "HEIF", "AVIF", "raw" or "video" for a file of ISO media boxes, by its brands; else ""."""
    if data[4:8] != b"ftyp":
        return ""
    size = min(int.from_bytes(data[:4]), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    if brands[0] == b"crx ":
        return "raw"
    for kind, known in (("AVIF", _AVIF), ("HEIF", _HEIF)):
        if brands[0] in known and (kind == "AVIF" or not _AVIF.intersection(brands)):
            return kind
    return "AVIF" if _AVIF.intersection(brands) else "HEIF" if _HEIF.intersection(brands) else "video"


def is_jxl(data: bytes) -> bool:
    """Return whether the bytes are JPEG XL, bare or in a container."""
    return data.startswith(_JXL)


def is_raw(data: bytes) -> bool:
    """Return whether the bytes are a camera's raw file. Many are TIFFs whose first image is a small preview."""
    if data.startswith(_RAW) or box_kind(data) == "raw":
        return True
    if not data.startswith(TIFF[:2]):
        return False
    tags = _first_tags(data)
    preview = tags.get(_SUBFILE, 0) & 1 or data[8:10] == b"CR"
    return _DNG_VERSION in tags or bool(preview and _MAKE in tags and (_SUB_IFDS in tags or data[8:10] == b"CR"))


def kind_of(data: bytes) -> str:
    """Guess the kind of a file that is not an image. Never quote its bytes: a stranger's list may name any file."""
    for start, kind in _OTHERS.items():
        if data.startswith(start):
            return kind
    if data.startswith(b"%PDF"):
        return PDF.kind
    if box_kind(data) == "video" or data.startswith(b"\x1aE\xdf\xa3") or (data[:4], data[8:12]) == (b"RIFF", b"AVI "):
        return VIDEO.kind
    return "text" if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in data[:24]) else "data of another kind"


def _first_tags(data: bytes) -> dict[int, int]:
    """Return the tags of a TIFF's first directory with their value words; at most 200 of them."""
    order: str = "little" if data[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    entries = range(start + 2, start + 2 + 12 * min(200, number(start, 2)), 12)
    return {number(at, 2): number(at + 8, 2) for at in entries}
