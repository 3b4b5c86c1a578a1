"""Read queries and documents in the forms that callers may pass.

    Item                        itself
    Path                        an image file
    PIL image                   an image
    {"image": …, "text": …}     either or both; the image a path (str or Path) or a PIL image
    str                         an image if it ends like one (.jpg, .png, …) and has no line break; else a text

A str that ends like an image must name an existing file: a mistyped path is an error, never a text. Wrap a text that
ends so in {"text": …}. This module knows images and texts, no model and no table.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.errors import MediaError, QueryError, UsageError
from looktwice.sources import file_uri, images
from looktwice.sources.loader import CandidateRef
from looktwice.sources.records import text_is_clean
from looktwice.sources.uri import MAX_BYTES
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image

QueryLike: TypeAlias = "Item | str | Path | Image | Mapping[str, Any]"

_URL = re.compile(r"https?:/")  # a Path has lost the second slash
_SUFFIX = re.compile(r"\.(?=\w*[A-Za-z])\w{2,5}$")


def as_item(value: Any, name: str) -> Item:
    """Return `value` as an item called `name`; an Item keeps its own name.

    Raises UsageError for an unreadable image, the path of a missing image, an empty text, and any other type.
    """
    if isinstance(value, Item):
        if value.text and value.text.strip():
            checked_text(value.text, value.id)
        return value
    if isinstance(value, str):
        return read_image(Path(value), name) if ends_like_image(value) else Item(name, text=checked_text(value, name))
    if isinstance(value, Mapping):
        return _both(value, name)
    if isinstance(value, os.PathLike):
        return read_image(Path(value), name)
    return Item(name, image=_upright(value, name))


def as_query(value: Any, name: str) -> Item:
    """Return `value` as `as_item` does, for a query. Raises QueryError if it cannot be read."""
    try:
        return as_item(value, name)
    except UsageError as error:
        raise QueryError(str(error), value.id if isinstance(value, Item) else name) from error


def as_candidate(value: Any, name: str) -> Item | CandidateRef:
    """Return a document for a shortlist. An image file must exist now and is read later.

    Raises UsageError as `as_item` does, except for a file that exists but is unreadable.
    """
    path, text = value, None
    if isinstance(value, Mapping):
        _check_keys(value, name)
    if isinstance(value, Mapping) and isinstance(value.get("image"), str | os.PathLike):
        path, text = Path(value["image"]), as_item({**value, "image": None}, name).text if value.get("text") else None
    if isinstance(path, os.PathLike) or (isinstance(path, str) and ends_like_image(path)):
        if _URL.match(str(path)):
            raise UsageError(f"{name} is a URL, and URLs of documents are not fetched; download the image first.")
        if not os.path.isfile(path):
            raise UsageError(
                f'{name}: file {str(path)!r} does not exist; check the path, or pass {{"text": …}} for a text.'
            )
        return CandidateRef(name, file_uri(path), text=text)
    return as_item(value, name)


def read_image(path: Path, name: str, text: str | None = None) -> Item:
    """Read an image file. Raises UsageError, with the reason, if that fails."""
    if _URL.match(str(path)):
        raise UsageError(f"{name} is a URL, and query images are not fetched; download the image first.")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # bounded, as a pipe or a device may never end
        if len(data) > MAX_BYTES:
            raise MediaError("too-large", f"more than {MAX_BYTES:,} bytes")
        image, _ = images.load(data)
    except OSError as error:
        raise UsageError(f"Image {str(path)!r} cannot be read ({error.strerror or error}); check the path.") from None
    except MediaError as error:
        raise UsageError(f"Image {str(path)!r} cannot be read ({error}); pass another image.") from None
    return Item(name, image=image, text=text, uri=str(path), sha256=hashlib.sha256(data).hexdigest())


def ends_like_image(text: str) -> bool:
    """Return whether a str counts as the path of an image.

    >>> ends_like_image("holiday photos/beach.JPG"), ends_like_image("a red bicycle")
    (True, False)
    """
    return "\n" not in text and Path(text).suffix.lower() in images.SUFFIXES


def looks_like_path(text: str) -> bool:
    """Return whether a bare argument on the command line was probably meant as a path.

    It ends like an image; or it holds no white space and has a separator, a leading `~` or a file suffix.

    >>> [looks_like_path(t) for t in ("my cat.jpg", "photos/cat", "cat.heic", "a cat and/or dog", "St. Ives", "cats")]
    [True, True, True, False, False, False]
    """
    if ends_like_image(text):
        return True
    if not text or re.search(r"\s", text):
        return text.startswith(("./", "../", "/", "~/"))
    return "/" in text or os.sep in text or text.startswith("~") or _SUFFIX.search(text) is not None


def _check_keys(value: Mapping[str, Any], name: str) -> None:
    given = [key for key in value if value[key] is not None]
    if set(value) - {"image", "text"} or not given:
        found = ", ".join(sorted(map(str, value))) or "nothing"
        raise UsageError(f'{name}: the dict has the keys {found}; it needs "image", "text" or both, and no other key.')


def _both(value: Mapping[str, Any], name: str) -> Item:
    _check_keys(value, name)
    image, text = value.get("image"), value.get("text")
    said = checked_text(text, name) if text is not None else None
    if image is None:
        return Item(name, text=said)
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image), name, said)
    return Item(name, image=_upright(image, name), text=said)


def checked_text(text: Any, name: str) -> str:
    """Return `text`. Raises UsageError, naming `name`, if it is not a str, empty or not UTF-8 (half characters)."""
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{name}: the text must be a non-empty str, not {text!r:.60}.")
    if not text_is_clean(text):
        raise UsageError(f"{name}: the text {text!r:.60} is not UTF-8; set the terminal to UTF-8.")
    return text


def _upright(image: Any, name: str) -> Image:
    """Return an image from memory as a file's would be: upright, RGB, alpha over white."""
    from PIL import Image as pil

    if not isinstance(image, pil.Image):
        raise UsageError(
            f"{name}: expected a path, a PIL image, a text or a dict with the keys image and text, found "
            f"{type(image).__name__}."
        )
    try:
        return images.upright(image)
    except MediaError as error:
        raise UsageError(f"{name}: the image cannot be read ({error}); pass another image.") from None
