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
