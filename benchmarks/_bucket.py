"""A bucket for measurements: it serves a folder over the S3 API, reading only, and counts what it is asked for.

moto keeps objects in memory; a table of 10⁷ rows lies on disk. Each request waits, as one to a real store does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "disk"
_TIME = "2026-01-01T00:00:00.000Z"


class FolderBucket(ThreadingHTTPServer):
    """Serves `folder` as the bucket BUCKET; every request first waits `wait` seconds."""

    daemon_threads, request_queue_size = True, 256

    def __init__(self, folder: Path, wait: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.wait, self._lock = folder, wait, Lock()
        self._seen: list[tuple[float, float, int]] = []

    def note(self, begun: float, sent: int) -> None:
        """Count a request that has been answered with `sent` bytes."""
        with self._lock:
            self._seen.append((begun, time.monotonic(), sent))

    def taken(self) -> dict[str, int]:
        """Return requests, bytes and round trips since the last call; requests side by side are one round trip."""
        with self._lock:
            seen, self._seen = sorted(self._seen), []
        trips, end = 0, 0.0
        for begun, ended, _ in seen:
            if begun >= end:
                trips, end = trips + 1, ended
        return {"requests": len(seen), "round_trips": trips, "bytes": sum(sent for _, _, sent in seen)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FolderBucket

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        begun, asked = time.monotonic(), urlsplit(self.path)
        time.sleep(self.server.wait)
        key = unquote(asked.path).removeprefix(f"/{BUCKET}").lstrip("/")
        sent = self._object(key) if key else self._list({name: v[0] for name, v in parse_qs(asked.query).items()})
        self.server.note(begun, sent)

    do_HEAD = do_GET

    def _object(self, key: str) -> int:
        path = self.server.folder / key
        if not path.is_file():
            return self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        size = path.stat().st_size
        start, end, status = 0, size, 200
        if asked := self.headers.get("Range", "").removeprefix("bytes="):
            first, last = asked.split("-")
            start, end = (int(first), min(size, int(last or size) + 1)) if first else (max(0, size - int(last)), size)
            status = 206
        headers = {"ETag": f'"{size}"', "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        headers |= {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if status == 206 else {}
        if self.command == "HEAD":
            return self._send(status, b"", headers, end - start)
        with path.open("rb") as file:
            return self._send(status, os.pread(file.fileno(), end - start, start), headers)

    def _list(self, query: dict[str, str]) -> int:
        prefix, top = query.get("prefix", ""), self.server.folder
        files = (path for path in top.joinpath(prefix).parent.rglob("*") if path.is_file())
        found = sorted(path.relative_to(top).as_posix() for path in files)
        found = [key for key in found if key.startswith(prefix) and key > query.get("start-after", "")]
        nested = [key for key in found if "delimiter" in query and "/" in key[len(prefix) :]]
        folders = sorted({prefix + key[len(prefix) :].split("/")[0] + "/" for key in nested})
        keys = [key for key in found if key not in set(nested)][: int(query.get("max-keys", 10**6))]
        lines = [
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_TIME}</LastModified>"
            f'<ETag>"1"</ETag><Size>{top.joinpath(key).stat().st_size}</Size></Contents>'
            for key in keys
        ]
        lines += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        lines = [f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated>", *lines]
        return self._send(200, f"<ListBucketResult>{''.join(lines)}</ListBucketResult>".encode())

    def _send(self, status: int, body: bytes, headers: dict[str, Any] | None = None, length: int | None = None) -> int:
        self.send_response_only(status)
        for name, value in {**(headers or {}), "Content-Length": len(body) if length is None else length}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return len(body)


@contextmanager
def served(folder: Path, wait: float = 0) -> Iterator[FolderBucket]:
    """Serve a folder until the end of the block."""
    server = FolderBucket(folder, wait)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
