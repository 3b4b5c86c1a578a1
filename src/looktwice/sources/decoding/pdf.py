"""Render pages of a PDF (extra `pdf`, PDFium)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

LONG_SIDE = 1600
"""Pixels of a page's longer side; text of ten points is then readable."""


def count(path: str) -> int:
    """Return how many pages a PDF has. Raises MediaError."""
    document = _open(path)
    try:
        return len(document)
    finally:
        document.close()


def page(path: str, number: int) -> Image:
    """Render page `number` (from 1) on white. Raises MediaError."""
    import pypdfium2

    document = _open(path)
    try:
        if not 1 <= number <= len(document):
            raise MediaError("missing", f"the PDF has {len(document)} pages; page {number} does not exist any more")
        chosen = document[number - 1]
        width, height = chosen.get_size()
        if not (width > 0 and height > 0):
            raise MediaError("empty", "the page has no size")
        scale = LONG_SIDE / max(width, height)
        if min(width, height) * scale < 1:
            raise MediaError("too-long", f"the page has {width:.0f} x {height:.0f} points")
        image: Image = chosen.render(scale=scale).to_pil()
        return image.convert("RGB")
    except pypdfium2.PdfiumError as error:
        raise MediaError("corrupt", str(error)) from None
    finally:
        document.close()


def _open(path: str) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise MediaError("unsupported", "the PDF has a password; save it without one") from None
        raise MediaError("corrupt", str(error)) from None
    except FileNotFoundError:
        raise MediaError("missing", "the file does not exist") from None
