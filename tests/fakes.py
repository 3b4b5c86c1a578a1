"""What tests alone need; stand-ins for models are in `looktwice.testing`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import looktwice

INSTALLED = Path(looktwice.__file__).parents[1]  # for PYTHONPATH of child processes: src/, or site-packages


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of random colours."""
    rng = np.random.default_rng((seed, width, height))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth_noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise that scaling does not wash out; every patch differs."""
    rng = np.random.default_rng([seed, width, height])
    coarse = Image.fromarray(rng.integers(0, 255, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)
