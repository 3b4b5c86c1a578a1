"""Tiny checkpoints, built once per session, and pictures that have broken preprocessing elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import noise
from tiny_models import built_in

from looktwice.types import Item


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a family's tiny checkpoint; do not write into it."""
    return built_in(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def items() -> list[Item]:
    """Wide, tall, square, 1 px, heights that look like a channel count, and one as thin as a hair."""
    sizes = [(120, 70), (50, 64), (33, 33), (1, 1), (5, 3), (3, 3), (3000, 2), (120, 70)]
    return [Item(f"p{n}", noise(*size, seed=n)) for n, size in enumerate(sizes)]
