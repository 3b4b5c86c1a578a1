"""Previews of a stranger's table: damaged ones are made anew, and none is shown for an item of another table."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from looktwice.serve import previews
from looktwice.serve.problems import Problem
from looktwice.sources import file_uri

SERVICE: Any = SimpleNamespace(settings=SimpleNamespace(allow_urls=False))


def webp(colour: str) -> bytes:
    Image.new("RGB", (64, 64), colour).save(out := io.BytesIO(), "WEBP")
    return out.getvalue()


def served(name: str, image: Path, stored: bytes | None) -> Any:
    """A table of one item, whose preview is `stored`."""
    row = {"id": "a", "uri": file_uri(image), "width": 64, "sha256": hashlib.sha256(image.read_bytes()).hexdigest()}
    reader = SimpleNamespace(
        lookup=lambda ids, columns: [row], preview=lambda *_: stored, manifest=SimpleNamespace(previews=512)
    )
    return SimpleNamespace(name=name, reader=lambda: reader)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "blue.png")
    return tmp_path / "blue.png"


def shown(table: Any) -> tuple[int, int, int]:
    data = previews.preview(SERVICE, table, "a", 160).data
    pixel = Image.open(io.BytesIO(data)).convert("RGB").getpixel((5, 5))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 64) for value in pixel)  # type: ignore[return-value]


def test_another_tables_preview_of_the_same_hash_is_not_shown(image: Path) -> None:
    assert shown(served("strange", image, webp("red"))) == (4, 0, 0)
    assert shown(served("own", image, webp("blue"))) == (0, 0, 4)


def test_a_stored_preview_is_sent_as_it_is_only_if_it_is_a_webp(image: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(out := io.BytesIO(), "GIF")
    for name, stored, same in (("webp", webp("red"), True), ("gif", out.getvalue(), False)):
        data = previews.preview(SERVICE, served(name, image, stored), "a", 160).data
        assert (data == stored) is same and previews.is_webp(data)


@pytest.mark.parametrize("stored", [b"", b"RIFF", b"\0" * 100, webp("red")[:40]])
def test_a_damaged_preview_gives_way_to_the_image(image: Path, stored: bytes) -> None:
    assert shown(served(f"damaged {len(stored)}", image, stored)) == (0, 0, 4)


def test_a_damaged_preview_of_a_missing_image_is_said(image: Path) -> None:
    table = served("gone", image, b"RIFF")
    image.unlink()
    with pytest.raises(Problem, match="cannot be read"):
        shown(table)
