"""Read one page of a PDF or one frame of a video as an image file."""

from __future__ import annotations

import io
import os

from looktwice.sources.decoding import worker
from looktwice.sources.formats import PDF, VIDEO


def read_part(path: bytes, part: str) -> bytes:
    """Return a page (`page=3`) or the frame at a time (`t=12.0`) as a BMP file. Raises MediaError."""
    kind, _, value = part.partition("=")
    extra = PDF if kind == "page" else VIDEO
    if not extra.installed:
        raise extra.missing()
    shown = os.fsdecode(path)
    image = worker.page(shown, int(value)) if extra is PDF else worker.frame(shown, float(value))
    out = io.BytesIO()
    image.save(out, "BMP")
    return out.getvalue()
