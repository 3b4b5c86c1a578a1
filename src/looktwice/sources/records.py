"""Hold the records that a scan yields, and make ids from names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources import images
from looktwice.sources.formats import NEEDS
from looktwice.sources.reading import WHOLE, Reading
from looktwice.sources.uri import Urls, display, read_uri
from looktwice.types import text_is_utf8

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_DEPTH = 100
"""Deepest nesting of metadata: Python's JSON fails at a depth that differs from call to call."""

REASONS = {
    "bad-record": "a line of a .jsonl file, or a .txt or .json in a .tar, is not usable",
    "bad-archive": "the .tar file cannot be read beyond this point",
    "too-many": "the PDF or video has more pages or frames than are read",
    **NEEDS,
}
"""Reasons that only a scan gives; those of `uri.REASONS` come on top."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a list: its number, from 1, and the uri of its bytes."""

    number: int
    uri: str


@dataclass(frozen=True, slots=True)
class Source:
    """A future item: the place of its bytes, its text and its metadata. Only `read` reads the bytes.

    `has_image` says whether the bytes are an image; otherwise the item is `text` alone. `root` is the folder (its uri,
    closing slash) or the .jsonl file that the id belongs to. `line` is the line of that file. `member` is the name of
    the image in its archive, or the path that a program gave.
    """

    id: str
    uri: str
    root: str
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    has_image: bool = True
    urls: Urls = "refused"
    line: Line | None = None
    member: str = ""

    @property
    def where(self) -> str:
        """Return the item's uri in the ledger: its line in a list, as several lines may share an image, else `uri`."""
        return self.line.uri if self.line else self.uri

    def describe_failure(self, detail: str) -> str:
        """Prefix `detail` with what the uri does not say: line, id and image in a .jsonl list, the name in a .tar."""
        if self.line is None:
            return f"{self.member}: {detail}" if self.member else detail
        image = f", {display(self.uri)}" if self.has_image else ""
        return f"line {self.line.number}, id {self.id!r}{image}: {detail}"

    def read(self) -> bytes:
        """Return the bytes that identify this item: the image's, else those of the text. Raises MediaError."""
        if not self.has_image:
            return (self.text or "").encode()
        return read_uri(self.uri, urls=self.urls)

    def decode(self, data: bytes, reading: Reading = WHOLE) -> tuple[Image, images.Size]:
        """Return the upright image of `data`, and the size that it states. Raises MediaError."""
        return images.load(data, reading)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something met while scanning that cannot become an item.

    `hides` is the beginning of the uris, or the root, of items that may still exist although this scan did not see
    them: pruning must keep them. It is the place itself if the place could not be read to its end (`torn`), else the
    place that holds this record. `item_id` is the id of an item that failed before it could be read.
    """

    uri: str
    root: str
    reason: str
    detail: str
    hides: str | None = None
    item_id: str = ""

    @property
    def torn(self) -> bool:
        return self.hides is not None and self.hides.rstrip("#") == self.uri

    @classmethod
    def of(cls, uri: str, root: str, error: MediaError, hides: str | None = None) -> Unreadable:
        return cls(uri, root, error.reason, error.detail, hides)


@dataclass(frozen=True, slots=True)
class Scope:
    """The items that one scanned folder, archive or list accounts for: those of `root` whose uri starts with `prefix`.

    A known item inside a scope that the scan did not meet is gone.
    """

    root: str
    prefix: str

    @property
    def place(self) -> str:
        """Return the folder, archive or list itself: several roots may have items in one folder."""
        return self.prefix.rstrip("#") or self.root


def name_to_id(name: bytes) -> str:
    """Return a file name or relative path as an id: valid, distinct UTF-8 for any bytes.

    A UTF-8 name is its own id. Any other name is escaped byte by byte behind `//`, which no relative path begins with,
    so that no two names share an id.

    >>> name_to_id("été/1%.jpg".encode()), name_to_id(b"caf\\xe9 1%.jpg")
    ('été/1%.jpg', '//caf%E9 1%25.jpg')
    """
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        escaped = name.decode("utf-8", "surrogateescape").replace("%", "%25")
        return "//" + "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in escaped)


def text_is_clean(value: object, depth: int = 0) -> bool:
    """Return whether every string inside a JSON value can be stored as UTF-8.

    Raises RecursionError above MAX_DEPTH levels: such a value could be read here and not written elsewhere.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        return text_is_utf8(value)
    if isinstance(value, dict):
        return all(text_is_clean(part, depth + 1) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(text_is_clean(part, depth + 1) for part in value)
    return True
