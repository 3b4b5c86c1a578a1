"""What tests of hostile requests share: bytes on the wire, images that lie, and what a refusal looks like."""

from __future__ import annotations

import socket
import struct
import zlib
from contextlib import closing

import httpx
from serving import Running

SECRET = ("Traceback", "/work", "/tmp", "/usr", "site-packages", "looktwice/serve", "Error(")


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """Assert an error in the API's shape that tells no secrets."""
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert not [word for word in SECRET if word in answer.text], answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def raw(server: Running, *parts: bytes, wait: float = 10) -> bytes:
    """Send bytes as they are, and return all that comes back until the server closes."""
    host, port = server.url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=wait)) as line:
        answer = b""
        try:
            for part in parts:
                line.sendall(part)
            while got := line.recv(65536):
                answer += got
        except (TimeoutError, ConnectionError):
            pass
        return answer


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, zeros: int = 10_000_000, *more: bytes) -> bytes:
    """Return a PNG that states a size, and `more` chunks; its pixels are so many zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * zeros, 9)
    own = [png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(own)
