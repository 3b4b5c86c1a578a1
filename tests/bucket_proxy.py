"""A proxy before an S3 server that misbehaves on purpose: it drops `If-None-Match`, or stops accepting writes."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """`drops`: headers that are not passed on. `writes_left`: PUTs until writing is denied, None for no limit."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target).netloc
        self.drops: set[str] = set()
        self.writes_left: int | None = None
        self.methods: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        proxy, body = self.server, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.methods[self.command] += 1
        if self.command in ("PUT", "POST", "DELETE") and proxy.writes_left is not None:
            proxy.writes_left -= 1
            if proxy.writes_left < 0:
                return self._send(403, [("Content-Type", "application/xml")], DENIED)
        link = http.client.HTTPConnection(proxy.target, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.drops}
        link.request(self.command, self.path, body, headers)
        answer = link.getresponse()
        data = answer.read()
        length = answer.headers["Content-Length"] if self.command == "HEAD" else None
        self._send(answer.status, answer.getheaders(), data, length)
        link.close()
        return None

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    """Run a proxy until the end of the block."""
    proxy = Proxy(target)
    Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
