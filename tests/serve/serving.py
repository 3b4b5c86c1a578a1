"""Run a real server on a free port of this machine, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import looktwice
from looktwice.serve import Settings, create_app
from looktwice.serve.run import Server, config

GALLERY = Path(looktwice.__file__).parent / "assets" / "tiny" / "gallery"


class Running:
    """A server in a thread, and a client for it."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self.server, self.service, self.settings = server, server.service, settings
        self.url = server.address
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)


@contextmanager
def running(settings: Settings, scorer: Any = None) -> Iterator[Running]:
    """Start a server, wait until it is ready, and stop it at the end."""
    settings = settings.model_copy(update={"port": 0})
    app = create_app(settings, scorer)
    server = Server(config(app, settings), app.state.service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not (server.started and server.service.ready) and server.service.failed is None:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        if server.service.failed is not None:
            raise server.service.failed
        made = Running(server, settings)
        with made.client:
            yield made
    finally:
        server.should_exit = True
        thread.join(30)
