"""A proxy before a store that misbehaves on purpose: drops conditions, refuses writes, lists what was."""

from __future__ import annotations

import http.client
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
WRITES = ("PUT", "POST", "DELETE")


class Answer(NamedTuple):
    """What a server answers. `length` is that of an object whose body was not asked for."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: str | None = None


class Proxy(ThreadingHTTPServer):
    """`drops`: headers that are not passed on. `writes_left`: writes until one is refused, None for no limit.

    `refusal` is the answer to a refused write. `lag`: for how many seconds a listing is answered as it was.
    """

    daemon_threads = True

    def __init__(self, target: str, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.target = urlsplit(target).netloc
        self.path = urlsplit(target).path
        self.drops: set[str] = set()
        self.writes_left: int | None = None
        self.refusal = Answer(403, [("Content-Type", "application/xml")], DENIED)
        self.lag = 0.0
        self.listings: dict[str, tuple[float, Answer]] = {}
        self.methods: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.path}"

    def handle_error(self, *_: object) -> None:
        """Keep quiet about clients that were killed."""

    def refuses(self, method: str) -> bool:
        """Return whether a request is refused; counts it."""
        self.methods[method] += 1
        if method in WRITES and self.writes_left is not None:
            self.writes_left -= 1
            return self.writes_left < 0
        return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refuses(self.command):
            return self._send(self.server.refusal)
        given = {name.lower(): value for name, value in self.headers.items()}
        headers = {name: value for name, value in given.items() if name not in self.server.drops}
        return self._send(self._listing(headers) or self.forward(self.command, self.path, headers, body))

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def _listing(self, headers: Mapping[str, str]) -> Answer | None:
        """Return a listing, perhaps as it was some time ago; None for any other request and without a lag."""
        if not self.server.lag or self.command != "GET" or not re.search("list-type|comp=list", self.path):
            return None
        at, answer = self.server.listings.get(self.path, (0.0, None))
        if answer is None or time.monotonic() - at > self.server.lag:
            answer = self.forward("GET", self.path, headers, b"")
            self.server.listings[self.path] = time.monotonic(), answer
        return answer

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Ask the server behind the proxy."""
        link = http.client.HTTPConnection(self.server.target, timeout=30)
        link.request(method, path, body, dict(headers))
        answer = link.getresponse()
        data = answer.read()
        length = answer.headers["Content-Length"] if method == "HEAD" else None
        link.close()
        return Answer(answer.status, answer.getheaders(), data, length)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        body = b"" if self.command == "HEAD" else answer.body
        self.send_header("Content-Length", answer.length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def proxy_to(target: str, handler: type[Handler] = Handler) -> Iterator[Proxy]:
    """Run a proxy until the end of the block."""
    proxy = Proxy(target, handler)
    Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
