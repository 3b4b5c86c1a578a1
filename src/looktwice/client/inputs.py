"""Put queries and documents into the form that a server takes. Images are sent as they are, undecoded."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.sources.images import SUFFIXES


def as_body(value: Any) -> dict[str, Any]:
    """Return a query or document as the JSON of a request.

    A path (or a str that ends like an image), bytes and a PIL image are images; any other str is a text; a dict holds
    "image", "text" or both; "item", the id of an item of the table, takes the place of an image. Raises UsageError.
    """
    if isinstance(value, Mapping):
        return _both(value)
    if isinstance(value, str) and not ends_like_image(value):
        return {"text": value}
    return {"image": encoded(value)}


def as_example(value: Any) -> Any:
    """Return an example: a str is the id of an item of the table unless it names a file; all else as `as_body` does."""
    if isinstance(value, Mapping) and set(value) == {"item"}:
        return value["item"]
    if isinstance(value, str) and not Path(value).is_file():
        return value
    return as_body(value) if isinstance(value, Mapping) else {"image": encoded(value)}


def examples(values: Sequence[Any]) -> list[Any]:
    """Return all examples."""
    return [as_example(value) for value in values]


def encoded(value: Any) -> str:
    """Return an image as base64. Raises UsageError for a file that cannot be read, and for another type."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str | os.PathLike):
        try:
            return base64.b64encode(Path(value).read_bytes()).decode()
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError(f"Image {str(value)!r} cannot be read ({why}); check the path.") from None
    if hasattr(value, "save") and hasattr(value, "mode"):
        out = io.BytesIO()
        (value if value.mode in ("RGB", "L", "RGBA", "P", "1") else value.convert("RGB")).save(out, "PNG")
        return base64.b64encode(out.getvalue()).decode()
    raise UsageError(f"Expected a path, bytes, a PIL image, a text or a dict of these, found {type(value).__name__}.")


def ends_like_image(text: str) -> bool:
    """Return whether a str counts as the path of an image.

    >>> ends_like_image("a/b.JPG"), ends_like_image("a red bicycle")
    (True, False)
    """
    return "\n" not in text and Path(text).suffix.lower() in SUFFIXES


def _both(value: Mapping[str, Any]) -> dict[str, Any]:
    if "item" in value and set(value) <= {"item", "text"}:
        return {name: given for name, given in value.items() if given is not None}
    if not value or set(value) - {"image", "text"}:
        found = ", ".join(map(str, value)) or "nothing"
        raise UsageError(f'The dict has the keys {found}; it needs "image" or "item", "text", or both.')
    made = {} if value.get("text") is None else {"text": value["text"]}
    return made if value.get("image") is None else {**made, "image": encoded(value["image"])}
