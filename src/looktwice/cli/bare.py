"""Tell what a bare query on the command line is: the path of an image, or a text. Loads no model and no image."""

from __future__ import annotations

import shlex
from pathlib import Path

from looktwice.errors import UsageError


def bare_kind(query: str) -> str:
    """Return "image" if a bare query names a file, else "text". Raises UsageError for the path of no file."""
    from looktwice.search.inputs import looks_like_path

    if not query.strip():
        raise UsageError("The query is empty; give an image file or a text.")
    path = Path(query)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):  # too long for a file name, or with a NUL in it: a text
        there = folder = False
    if folder:
        raise UsageError(f"{query!r} is a folder; name an image in it, or pass --text {shlex.quote(query)}.")
    if there:
        return "image"
    if looks_like_path(query):
        raise UsageError(f"File {query!r} does not exist; check the path, or pass --text {shlex.quote(query)}.")
    return "text"
