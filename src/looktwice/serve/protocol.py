"""Speak HTTP/1.1 with limits of its own: time for headers and answers, connections, and errors in the API's shape."""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from looktwice.serve import problems
from looktwice.serve.guard import HEADERS
from looktwice.serve.problems import Problem

MOST_HEADERS = 1 << 16


class Protocol(H11Protocol):
    """HTTP/1.1 that gives a client `header_seconds` for its first headers, and answers `most_connections` clients.

    A client has `write_seconds` to take each part of an answer (`guard.PART` bytes).
    """

    header_seconds = 10.0
    write_seconds = 60.0
    most_connections = 512
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # writing pauses while anything waits to be taken
        self._timer = self.loop.call_later(self.header_seconds, self._give_up)
        if len(self.connections) > self.most_connections:
            self.app = refuse

    def data_received(self, data: bytes) -> None:
        """Read what came; headers that have begun must end in time, also those of a later request."""
        super().data_received(data)
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if begun and self._timer is None:
            self._timer = self.loop.call_later(self.header_seconds, self._give_up)
        elif not begun and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        """Wait for a client that does not take what was written; cut it off after a while."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        self._stop_waiting()
        super().resume_writing()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; called while h11's error is handled."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        code, text = {
            431: ("headers_too_large", f"The headers of a request may have at most {MOST_HEADERS:,} bytes."),
            501: ("unknown_encoding", "The server knows no transfer encoding but chunked."),
        }.get(status, ("bad_http", "The request is not valid HTTP/1.1."))
        body = json.dumps(Problem(status, code, text).body()).encode()
        about = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        headers = list({**HEADERS, **about}.items())
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer 429 to one connection too many, and close it."""
    problem = problems.busy(1)
    headers = {**HEADERS, "content-type": "application/json", "connection": "close", **problem.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": json.dumps(problem.body()).encode()})
