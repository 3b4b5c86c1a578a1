"""What callers may hand in as a query or a document, and how it is read.

    Item                        itself
    Path                        a picture file
    PIL image                   a picture
    {"image": …, "text": …}     either or both; the image a path (str or Path) or a PIL image
    str                         a picture where it ends like one (.jpg, .png, …) and holds no line break; else a text

A str that ends like a picture must name a file that exists: a mistyped path is an error, never a text. Wrap it in
{"text": …} where it is meant as words. Knows pictures and texts, no model and no table.
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

    Raises UsageError for a picture that cannot be read, a str that looks like a picture file but names none, an empty
    text, and anything that is none of the kinds above.
    """
    if isinstance(value, Item):
        if value.text and value.text.strip():
            words(value.text, value.id)
        return value
    if isinstance(value, str):
        return picture(Path(value), name) if ends_like_picture(value) else Item(name, text=words(value, name))
    if isinstance(value, Mapping):
        return _both(value, name)
    if isinstance(value, os.PathLike):
        return picture(Path(value), name)
    return Item(name, image=_upright(value, name))


def as_query(value: Any, name: str) -> Item:
    """Return `value` as `as_item` does, for a query. Raises QueryError where it cannot be read."""
    try:
        return as_item(value, name)
    except UsageError as error:
        raise QueryError(str(error), value.id if isinstance(value, Item) else name) from error


def as_candidate(value: Any, name: str) -> Item | CandidateRef:
    """Return a document for a shortlist; picture files are only looked for here, and read when their turn comes.

    Raises UsageError as `as_item` does, except that a file which exists and proves unreadable is found out later.
    """
    path, text = value, None
    if isinstance(value, Mapping) and isinstance(value.get("image"), str | os.PathLike):
        path, text = Path(value["image"]), as_item({**value, "image": None}, name).text if value.get("text") else None
    if isinstance(path, os.PathLike) or (isinstance(path, str) and ends_like_picture(path)):
        if not os.path.isfile(path):
            raise UsageError(
                f'{name}: there is no file {str(path)!r}; wrap it in {{"text": …}} if it is meant as words.'
            )
        return CandidateRef(name, file_uri(path), text=text)
    return as_item(value, name)


def picture(path: Path, name: str, text: str | None = None) -> Item:
    """Read a picture file. Raises UsageError, with the reason, where that is not possible."""
    if _URL.match(str(path)):
        raise UsageError(f"{name} is the URL of a picture, which is not fetched here; download it first.")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)  # never more: it may be a pipe or a device without an end
        if len(data) > MAX_BYTES:
            raise MediaError("too-large", f"more than {MAX_BYTES:,} bytes")
        image, _ = images.load(data)
    except OSError as error:
        raise UsageError(f"The picture {str(path)!r} cannot be read: {error.strerror or error}.") from None
    except MediaError as error:
        raise UsageError(f"The picture {str(path)!r} cannot be read ({error}); give another one.") from None
    return Item(name, image=image, text=text, uri=str(path), sha256=hashlib.sha256(data).hexdigest())


def ends_like_picture(text: str) -> bool:
    """True where a str is taken as the path of a picture.

    >>> ends_like_picture("holiday photos/beach.JPG"), ends_like_picture("a red bicycle")
    (True, False)
    """
    return "\n" not in text and Path(text).suffix.lower() in images.SUFFIXES


def looks_like_path(text: str) -> bool:
    """True for a bare word on the command line that was probably meant as a path.

    It ends like a picture; or it holds no white space and has a separator, a leading `~` or a file suffix.

    >>> [looks_like_path(t) for t in ("my cat.jpg", "photos/cat", "cat.heic", "a cat and/or dog", "St. Ives", "cats")]
    [True, True, True, False, False, False]
    """
    if ends_like_picture(text):
        return True
    if not text or re.search(r"\s", text):
        return text.startswith(("./", "../", "/", "~/"))
    return "/" in text or os.sep in text or text.startswith("~") or _SUFFIX.search(text) is not None


def _both(value: Mapping[str, Any], name: str) -> Item:
    image, text = value.get("image"), value.get("text")
    unknown = set(value) - {"image", "text"}
    if unknown or (image is None and text is None):
        found = ", ".join(sorted(map(str, value))) or "nothing"
        raise UsageError(f'{name}: a dict needs "image" or "text" or both, and nothing else; found {found}.')
    said = words(text, name) if text is not None else None
    if image is None:
        return Item(name, text=said)
    if isinstance(image, str | os.PathLike):
        return picture(Path(image), name, said)
    return Item(name, image=_upright(image, name), text=said)


def words(text: Any, name: str) -> str:
    """Return `text`. Raises UsageError, naming `name`, for what is no str, empty or not UTF-8 (half characters)."""
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{name}: a text must be words, found {text!r:.60}.")
    if not text_is_clean(text):
        raise UsageError(f"{name}: the text {text!r:.60} is not UTF-8; is the terminal set to another encoding?")
    return text


def _upright(image: Any, name: str) -> Image:
    """A picture from memory, treated as a file would be: upright, RGB, alpha over white."""
    from PIL import Image as pil

    if not isinstance(image, pil.Image):
        raise UsageError(
            f"{name}: expected a path, a PIL image, a text or a dict of these, found {type(image).__name__}."
        )
    try:
        return images.upright(image)
    except MediaError as error:
        raise UsageError(f"{name}: the picture cannot be read ({error}); give another one.") from None
