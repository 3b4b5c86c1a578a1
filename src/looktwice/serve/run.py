"""Run a server in this process until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from looktwice.errors import UsageError
from looktwice.serve.app import create_app
from looktwice.serve.protocol import MOST_HEADERS, Protocol
from looktwice.serve.service import Service
from looktwice.serve.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, which first answers 503 to what still waits for the device, and tells when the weights are loaded."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[str], None] | None = None) -> None:
        super().__init__(config)
        self.service, self._ready = service, ready
        self._announced = False

    async def on_tick(self, counter: int) -> bool:
        """Announce once that the server is ready; stop if loading failed."""
        if not self._announced and self.service.ready:
            self._announced = True
            if self._ready is not None:
                self._ready(self.address)
        if self.service.failed is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: Any = None) -> None:
        """Listen. Raises UsageError for an address that is taken, where uvicorn would end the process."""
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise cannot_listen(self.config) from error

    async def shutdown(self, sockets: Any = None) -> None:
        """Let running requests end and refuse the others."""
        self.service.jobs.stop_waiting()
        await super().shutdown(sockets)

    @property
    def address(self) -> str:
        """Return the URL that the server listens at."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. `ready` is told the address when weights and tables are loaded.

    Raises what loading raised.
    """
    app = create_app(settings)
    server = Server(config(app, settings), app.state.service, ready)
    server.service.watched = True
    server.run()
    if server.service.failed is not None:
        raise server.service.failed


def cannot_listen(config: uvicorn.Config) -> UsageError:
    """Return the error for an address that is taken or is not this machine's; uvicorn has logged the reason."""
    return UsageError(f"The server cannot listen at {config.host}:{config.port}; choose another --port or --host.")


def config(app: Any, settings: Settings, workers: int = 1) -> uvicorn.Config:
    """Return uvicorn's settings: HTTP/1.1 by h11, whose limits are known, and no proxy headers.

    With several workers `app` is the import string of a function that makes it.
    """
    own = {"header_seconds": settings.header_seconds, "most_connections": settings.max_connections}
    own["write_seconds"] = settings.write_seconds
    protocol = Protocol if workers > 1 else type("Protocol", (Protocol,), own)
    return uvicorn.Config(
        app,
        factory=workers > 1,
        workers=workers,
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=settings.stop_seconds,
        h11_max_incomplete_event_size=MOST_HEADERS,
    )


def log_to_stderr() -> Callable[[], None]:
    """Write the log as JSON lines to stderr. Return a function that ends this."""
    handler = logging.StreamHandler(sys.stderr)
    loggers = [logging.getLogger(name) for name in ("looktwice.serve", "looktwice.serve.access")]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)

    def stop() -> None:
        for logger, handlers, propagate, level in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)

    return stop
