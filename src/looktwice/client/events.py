"""Read the events of a stream as its bytes arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.client.answers import MOST_BYTES, in_our_form, raise_for, too_long


class EventReader:
    """Turns pieces of a stream into events: a name, then a line of JSON."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._name = ""

    def feed(self, piece: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events that end in this piece. Raises what an error event says, ServerError for a foreign form."""
        first, *others = piece.split(b"\n")
        self._line += first
        if len(self._line) > MOST_BYTES:
            raise too_long()
        for following in others:
            yield from self._read(bytes(self._line))
            self._line = bytearray(following)

    def _read(self, line: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        kind, _, rest = line.rstrip(b"\r").partition(b": ")
        if kind == b"event":
            self._name = rest.decode("utf-8", "replace")
        if kind != b"data":
            return
        with in_our_form():
            data = read_json(rest)
            demand(data, dict, "the event")
            if self._name == "error":
                raise_for(500 if data["error"]["type"] == "server_error" else 400, rest)
        yield self._name, data
