"""A server shared by a module, over forty drawings and the bundled models."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import GALLERY, Running, running

import looktwice
from looktwice.encode import load_encoder
from looktwice.serve import Settings
from looktwice.store import Table


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of forty drawings, indexed once."""
    path = tmp_path_factory.mktemp("serve") / "photos.lt"
    encoder = load_encoder("tiny-clip")
    sources = [s for s in looktwice.scan([GALLERY / "images"]) if s.id < "scene-040"]
    looktwice.index(Table.create(path, encoder.info), sources, encoder)
    return path


@pytest.fixture(scope="module")
def server(drawings: Path) -> Iterator[Running]:
    """A server over the drawings, with the bundled models and default settings."""
    with running(Settings(tables=(drawings,))) as made:
        yield made


@pytest.fixture(scope="session")
def image_of() -> Callable[[str], str]:
    """Return the base64 of one of the gallery's images."""
    return lambda name: base64.b64encode((GALLERY / "images" / name).read_bytes()).decode()
