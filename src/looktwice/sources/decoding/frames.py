"""Write and read messages between this process and its decoders: a JSON header and bytes, each behind its length."""

from __future__ import annotations

import json
from typing import IO, Any

MOST_HEADER = 2**20


def send(stream: IO[bytes], header: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message."""
    about = json.dumps(header).encode()
    stream.write(len(about).to_bytes(4) + len(body).to_bytes(8) + about)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message. Raises EOFError if the other side has ended."""
    lengths = _exactly(stream, 12)
    size = int.from_bytes(lengths[:4])
    if size > MOST_HEADER:
        raise EOFError
    header: dict[str, Any] = json.loads(_exactly(stream, size))
    return header, _exactly(stream, int.from_bytes(lengths[4:]))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
