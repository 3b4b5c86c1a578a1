"""Pictures on their way into a model."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.encode.pixels import THINNEST, LargerSide, larger_side, presentable

sides = st.integers(1, 5000)


@given(sides, sides, st.integers(16, 1024))
def test_the_larger_side_is_exact_and_the_aspect_kept(width: int, height: int, side: int) -> None:
    wide, high = larger_side((width, height), side)
    assert max(wide, high) == side and min(wide, high) >= 1
    assert (wide >= high) == (width >= height) or wide == high
    exact = side * min(width, height) / max(width, height)
    assert exact - 1 - 1e-9 <= min(wide, high) <= max(1, exact + 1e-9)


@given(sides, sides)
def test_no_picture_is_thinner_than_the_models_take(width: int, height: int) -> None:
    if width * height > 10**6:
        width, height = min(width, 1000), min(height, 1000)
    picture = presentable(Image.new("L", (width, height)))
    assert picture.mode == "RGB"
    assert max(picture.size) <= THINNEST * min(picture.size)
    assert picture.size == (width, height) or min(picture.size) == min(width, height)


def test_the_middle_of_a_thin_picture_is_kept() -> None:
    picture = Image.new("RGB", (1001, 1))
    picture.putpixel((500, 0), (255, 0, 0))
    middle = presentable(picture)
    assert middle.size == (100, 1) and middle.getpixel((50, 0)) == (255, 0, 0)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 7, 8]))
def test_padding_is_zero_shared_by_both_ends_and_fills_whole_patches(width: int, height: int, patch: int) -> None:
    pixels = LargerSide(32, patch, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    picture = Image.new("RGB", (width, height), (255, 128, 0))
    tensor = pixels.inputs([picture])["pixel_values"]
    wide, high = larger_side((width, height), 32)
    columns, rows = pixels.key(picture)
    assert tensor.shape == (1, 3, rows * patch, columns * patch) and tensor.dtype == torch.float32
    top, left = (rows * patch - high) // 2, (columns * patch - wide) // 2
    inside = tensor[0, :, top : top + high, left : left + wide]
    flat = (np.array([255, 128, 0]) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(inside.mean((1, 2)).numpy(), flat, atol=1e-5)
    np.testing.assert_allclose(float(tensor.abs().sum()), float(inside.abs().sum()), rtol=1e-5)
