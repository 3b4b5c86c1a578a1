"""A server shared by a module, over forty drawings and the bundled models."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Opener, Site, chromium
from playwright.sync_api import Browser
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


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of forty drawings with columns, and one item whose file is gone."""
    folder = tmp_path_factory.mktemp("shop")
    lines = [
        {
            "id": f"scene-{n:03}.jpg",
            "image": str(GALLERY / "images" / f"scene-{n:03}.jpg"),
            "shelf": "right" if n % 2 else "left",
            "price": n + 0.5,
            "new": n < 10,
        }
        for n in range(40)
    ]
    listed = folder / "shop.jsonl"
    listed.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"id": "gone.jpg", "image": "gone.jpg"}]))
    encoder = load_encoder("tiny-clip")
    table = Table.create(folder / "shop.lt", encoder.info, {"shelf": str, "price": float, "new": bool})
    looktwice.index(table, looktwice.scan([listed]), encoder)
    return folder / "shop.lt"


@pytest.fixture(scope="module")
def server(drawings: Path) -> Iterator[Running]:
    """A server over the drawings, with the bundled models and default settings."""
    with running(Settings(tables=(drawings,))) as made:
        yield made


@pytest.fixture(scope="session")
def image_of() -> Callable[[str], str]:
    """Return the base64 of one of the gallery's images."""
    return lambda name: base64.b64encode((GALLERY / "images" / name).read_bytes()).decode()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module: while it lives, nothing else may run an event loop in this process."""
    with chromium() as made:
        yield made


@pytest.fixture(scope="session")
def shop_page(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server over the shop with a second look, which the tests of the page share; it remembers scores."""
    with running(Settings(tables=(shop,), score_cache=tmp_path_factory.mktemp("scores") / "scores")) as made:
        yield made


@pytest.fixture
def visit(browser: Browser) -> Iterator[Opener]:
    """Return a function that opens a fresh page of a server. At the end no page may have said a fault."""
    opened = []

    def open_page(server: Running, *, faults: bool = False, **how: Any) -> Site:
        how = {"viewport": {"width": 1400, "height": 2800}, "reduced_motion": "reduce", **how}
        context = browser.new_context(**how)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        site = Site(context.new_page(), server.url)
        opened.append((site, faults))
        return site

    yield open_page
    for site, faults in opened:
        site.page.context.close()
        assert faults or site.faults == []
