"""timm's preprocessing without torchvision: held to timm's own transform where it is installed, else to what it gave.

`python tests/encode/test_timm_pixels.py`, in an environment with timm and torchvision, prints GOLDEN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.encode.timm_pixels import TimmPixels, centre

SIZES = [
    (65, 64),
    (67, 64),
    (64, 65),
    (64, 67),
    (120, 71),
    (71, 120),
    (64, 64),
    (100, 33),
    (33, 100),
    (7, 9),
    (301, 299),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "perception": {"crop_pct": 1.0, "crop_mode": "center", "interpolation": "bicubic"},
    "imagenet": {"crop_pct": 0.875, "crop_mode": "center", "interpolation": "bilinear"},
    "squash": {"crop_pct": 0.95, "crop_mode": "squash", "interpolation": "bicubic"},
    "border": {"crop_pct": 0.9, "crop_mode": "border", "interpolation": "lanczos"},
}
COMMON = {"input_size": (3, 64, 64), "mean": (0.48, 0.45, 0.4), "std": (0.27, 0.26, 0.28)}

# the sum of all pixels and the top left one of each channel, of SIZES in turn
GOLDEN: dict[str, list[tuple[float, float, float, float]]] = {
    "perception": [
        (2565.4, 0.0813, 1.7986, 1.9748),
        (2566.8, 0.793, 2.0852, 1.5546),
        (2565.4, 0.0813, 1.7986, 1.9748),
        (2550.7, 0.0813, 1.7383, 1.9048),
        (2527.2, -1.7342, -0.5241, 1.3866),
        (2734.6, 0.0668, -1.3386, -1.1345),
        (2565.4, 0.0813, 1.7986, 1.9748),
        (2394.0, 0.6187, 2.04, 1.6807),
        (2694.3, 0.0813, 0.1848, 0.3501),
        (14336.1, 0.0378, 1.7836, 2.0028),
        (2549.4, 0.7495, 1.9495, 1.4706),
    ],
    "imagenet": [
        (2476.6, 1.3014, 1.7986, 0.7843),
        (2472.5, 1.4611, 1.678, 0.5182),
        (2519.0, 1.0254, 1.7232, 0.9804),
        (2556.0, 0.9237, 1.5724, 0.9244),
        (2556.5, -0.5723, 1.0747, 1.8627),
        (2534.9, -0.5868, -0.7504, 0.042),
        (2484.3, 1.098, 1.859, 1.0364),
        (2907.3, 1.2578, 2.04, 1.0644),
        (2203.0, 0.2411, 0.7127, 0.7283),
        (14665.8, 0.0813, 1.7836, 1.9608),
        (2552.3, 0.7204, 1.6629, 1.2045),
    ],
    "squash": [
        (2549.3, 0.7349, 2.0249, 1.5266),
        (2563.2, 0.764, 2.0249, 1.5126),
        (2548.1, 0.7349, 2.0098, 1.5406),
        (2560.5, 0.7349, 2.0098, 1.5406),
        (2597.6, 1.3304, 1.9646, 0.9384),
        (2466.2, 0.7204, 1.7836, 1.3445),
        (2542.3, 0.7349, 2.0249, 1.5406),
        (2504.4, 1.1707, 2.1003, 1.1905),
        (2556.1, 0.2992, 1.7383, 1.6947),
        (14077.5, 0.0523, 1.7836, 1.9888),
        (2554.5, 0.154, 0.1998, 0.2801),
    ],
    "border": [
        (2509.0, 1.1997, 1.9495, 1.0224),
        (2526.3, 1.3014, 2.0098, 0.9944),
        (2539.1, 0.9092, 1.859, 1.2325),
        (2562.8, 0.6623, 1.8137, 1.4286),
        (1696.3, -0.0058, 0.0038, 0.0),
        (1578.2, -0.0058, 0.0038, 0.0),
        (2519.8, 1.1271, 1.8439, 0.9944),
        (962.1, -0.0058, 0.0038, 0.0),
        (915.9, -0.0058, 0.0038, 0.0),
        (12112.0, -0.0058, 0.0038, 0.0),
        (2554.0, 0.9528, 1.8741, 1.1905),
    ],
}


def picture(width: int, height: int) -> Image.Image:
    """Smooth, but different in every column and row, so that a shift by one pixel shows."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [128 + 127 * np.sin(x / 5 + phase) * np.cos(y / 7) for phase in (0, 1, 2)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def ours(kind: str, image: Image.Image) -> torch.Tensor:
    return TimmPixels.of(COMMON | SETTINGS[kind]).inputs([image])["pixel_values"][0]


def by_timm(kind: str, image: Image.Image) -> torch.Tensor:
    from timm.data import create_transform

    tensor: torch.Tensor = create_transform(**COMMON, **SETTINGS[kind], is_training=False)(image)
    return tensor


def summary(tensor: torch.Tensor) -> tuple[float, ...]:
    return (round(float(tensor.double().sum()), 1), *(round(float(value), 4) for value in tensor[:, 0, 0]))


@pytest.mark.parametrize("kind", SETTINGS)
def test_pixels_are_what_timm_gave(kind: str) -> None:
    found = [summary(ours(kind, picture(*size))) for size in SIZES]
    np.testing.assert_allclose(found, GOLDEN[kind], atol=0.06)
    np.testing.assert_allclose(np.array(found)[:, 1:], np.array(GOLDEN[kind])[:, 1:], atol=2e-4)


@pytest.mark.parametrize("kind", SETTINGS)
def test_pixels_are_what_timm_gives(kind: str) -> None:
    pytest.importorskip("torchvision", reason="the optional extra timm is not installed", exc_type=ImportError)
    rng = np.random.default_rng(0)
    sizes = [*SIZES, *(tuple(map(int, rng.integers(1, 400, 2))) for _ in range(150))]
    for size in sizes:
        if max(size) <= 100 * min(size):
            image = picture(*size)
            np.testing.assert_allclose(ours(kind, image), by_timm(kind, image), atol=1e-6, err_msg=str(size))


@given(st.integers(1, 90), st.integers(1, 90))
def test_the_middle_is_what_is_kept(width: int, height: int) -> None:
    """Margins differ by one pixel at most, and nothing but `fill` is added."""
    cut = np.asarray(centre(Image.new("RGB", (width, height), (255, 0, 0)), 40, (0, 9, 0)))
    filled = (cut == (0, 9, 0)).all(-1)
    assert cut.shape == (40, 40, 3) and (~filled).sum() == min(width, 40) * min(height, 40)
    rows, columns = filled.all(1), filled.all(0)
    for lines in (rows, columns):
        assert abs(int(np.argmin(lines)) - int(np.argmin(lines[::-1]))) <= 1


if __name__ == "__main__":
    print({kind: [summary(by_timm(kind, picture(*size))) for size in SIZES] for kind in SETTINGS})
