"""Drive the page in a real browser: one Chromium for all tests, a fresh page for each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = "(prefers-reduced-motion: reduce)"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium. Skips the tests where there is none; `make test` installs it."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


class Site:
    """A page of one server, with what it said and asked."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.faults: list[str] = []
        self.asked: list[dict[str, Any]] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        page.on("request", self._hear)

    def _hear(self, request: Any) -> None:
        if request.url.endswith("/v1/search"):
            self.asked.append(json.loads(request.post_data))

    def open(self, **link: Any) -> Page:
        """Open the page with a state in its link, and wait until something is shown."""
        parts = [f"{key}={quote(str(value), safe='')}" for key, value in link.items()]
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/{'#' if parts else ''}{'&'.join(parts)}")
        self.page.wait_for_selector(".tile, #table-page h1, .welcome", timeout=30_000)
        return self.page

    def search(self, **link: Any) -> Page:
        """Open the page with a query in its link, and wait for the end of the second look."""
        page = self.open(**link)
        self.done()
        return page

    def done(self) -> None:
        """Wait for the end of a search, and until nothing moves."""
        self.page.wait_for_function(
            "() => document.querySelector('.step:last-child.done') && !document.querySelector('#grid.moving')",
            timeout=30_000,
        )

    @contextmanager
    def asks(self) -> Iterator[None]:
        """Wait for the search that the block begins, and for its end."""
        with self.page.expect_request("**/v1/search"):
            yield
        self.done()

    def ids(self) -> list[str]:
        """Return the ids of the tiles in the order in which they are seen."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll('.tile')]
            .map((tile) => [Number(tile.getAttribute('aria-posinset')), tile.dataset.id])
            .sort((a, b) => a[0] - b[0]).map((pair) => pair[1])"""
        )
        return found

    def state(self) -> str:
        """Return the part of the link behind #, which is written at most four times a second."""
        self.page.wait_for_timeout(300)
        return str(self.page.evaluate("() => decodeURIComponent(location.hash.slice(1))"))


Opener = Callable[..., Site]
