"""Stand-ins whose every number can be worked out by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from looktwice.types import EncoderInfo, Item


class ColourEncoder:
    """Mean red, green and blue (0 to 1) of the four quarters of a picture, then how often a text uses a-f, g-l, m-r and
    s-z; scaled to unit length. A red picture is (½, 0, 0) four times; a black one without text has no direction.

    `calls` holds the ids of each batch.
    """

    def __init__(self, revision: str = "1") -> None:
        self.info = EncoderInfo("fake-colour", revision, "box2", 16)
        self.calls: list[list[str]] = []

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        self.calls.append([item.id for item in items])
        rows = np.stack([_numbers(item) for item in items]) if items else np.empty((0, 16), np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (rows / norms).astype(np.float32)

    @property
    def encoded(self) -> int:
        return sum(map(len, self.calls))


def _numbers(item: Item) -> np.ndarray:
    quarters = np.zeros(12)
    if item.image is not None:
        small = item.image.resize((2, 2), Image.Resampling.BOX)
        quarters = np.asarray(small, np.float64).ravel() / 255
    letters = [character for character in (item.text or "").lower() if "a" <= character <= "z"]
    counts = [sum(low <= letter <= high for letter in letters) for low, high in ("af", "gl", "mr", "sz")]
    return np.concatenate([quarters, counts]).astype(np.float32)


def picture(colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """Bytes of a picture of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def save_pictures(folder: Path, count: int, start: int = 0) -> list[Path]:
    """Write `count` small pictures of different colours, 0000.png, 0001.png, …, none of them black."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(start, start + count):
        path = folder / f"{number:04}.png"
        path.write_bytes(picture((number % 251 + 1, number // 251 % 251, number * 7 % 256)))
        paths.append(path)
    return paths
