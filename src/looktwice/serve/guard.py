"""Stand in front of every route: request id, host, key, origin, limits of the body, headers of answers, log lines.

Everything is refused here before a route sees it. A new route is closed by default: only HEALTH answers without a key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from looktwice.serve import problems
from looktwice.serve.holding import HeldBytes, Holding, current
from looktwice.serve.problems import Problem
from looktwice.serve.settings import LOOPBACK, Settings, is_loopback

log = logging.getLogger("looktwice.serve")
access = logging.getLogger("looktwice.serve.access")

AsgiScope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

HEALTH = frozenset({"/healthz", "/readyz"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:@/\[\]]+))(?::\d{1,5})?\Z")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
PART = 1 << 16
"""Bytes of an answer that are handed on at once: the next ones follow when the client has taken these."""
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """The outermost layer of the app. `observe` is told route, status and seconds of every answer."""

    def __init__(
        self, app: App, settings: Settings, observe: Callable[[str, str, int, float], None], memory: HeldBytes
    ) -> None:
        self.app, self.settings, self.observe, self.memory = app, settings, observe, memory
        self._keys = [_digest(key.get_secret_value().encode()) for key in settings.api_keys]
        self._hosts = {host.strip("[]").lower() for host in (*LOOPBACK, settings.host)}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        await _Exchange(self, scope, receive, send).run()

    def check(self, scope: AsgiScope, headers: dict[str, str]) -> None:
        """Raise Problem for a request that must not reach a route."""
        self._check_host(headers)
        if _path(scope) in HEALTH:
            return
        if self._keys and not self.knows(headers.get("authorization", "")):
            realm = 'Basic realm="looktwice", charset="UTF-8"'
            raise Problem(
                401, "no_key", "Send a valid API key as `Authorization: Bearer KEY`.", None, {"WWW-Authenticate": realm}
            )
        self._check_origin(scope, headers)

    def knows(self, authorization: str) -> bool:
        """Return whether a header holds a key, as Bearer token or as Basic password (browsers can ask for that).

        Every key is compared, in constant time.
        """
        scheme, _, value = authorization.partition(" ")
        given = value.strip().encode()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                given = b""
        elif scheme.lower() != "bearer":
            given = b""
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(_digest(given), key)
        return found

    def _check_host(self, headers: dict[str, str]) -> None:
        """Without a key only names of this machine count: else a page could reach it by DNS rebinding."""
        if self._keys or not is_loopback(self.settings.host):
            return
        found = _HOST.match(headers.get("host", ""))
        name = "" if found is None else found[1] or found[2]
        if name.lower() not in self._hosts and not is_loopback(name):
            raise Problem(
                421,
                "wrong_host",
                "This server answers to the names of its own machine; call 127.0.0.1, or start it with API keys.",
            )

    def _check_origin(self, scope: AsgiScope, headers: dict[str, str]) -> None:
        """Refuse what another site's page makes a browser send; CORS alone would only hide the answer."""
        origin = headers.get("origin")
        if origin is None or origin in self.settings.cors:
            if (
                headers.get("sec-fetch-site") != "cross-site"
                or origin is not None
                or scope["method"] in ("GET", "HEAD")
            ):
                return
        elif origin == f"{scope.get('scheme', 'http')}://{headers.get('host', '')}":
            return
        raise Problem(403, "wrong_origin", "Pages of other sites may not call this server; see --cors.")


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: AsgiScope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self.headers = _headers(scope["headers"])
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.match(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.id
        self.begin = time.perf_counter()
        self.body_until = time.monotonic() + guard.settings.body_seconds
        self.received = 0
        self.holding = Holding(guard.memory)
        self.status: int | None = None
        self.read_all = False

    async def run(self) -> None:
        current.set(self.holding)
        try:
            self.guard.check(self.scope, self.headers)
            self._check_length()
            _keep_escapes(self.scope)
            if self._is_preflight():
                await self._answer(204, [], b"")
            else:
                await self.guard.app(self.scope, self.receive, self.send)
        except Exception as error:
            await self._fail(error)
        finally:
            self.holding.release()
            self._log()

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next part of the body, within its limits of size and time."""
        if self.read_all:
            return await self._receive()
        left = self.body_until - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.01, left))
        except TimeoutError:
            raise Problem(408, "slow_body", "The request's body did not arrive in time.", None, _CLOSE) from None
        self.received += len(message.get("body", b""))
        if self.received > self.guard.settings.max_body:
            raise self._too_large()
        self.holding.add(len(message.get("body", b"")))
        self.read_all = not message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Add the headers of every answer, and send its body in parts."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            names = {name.lower() for name, _ in message.get("headers", [])}
            more = {**HEADERS, **self._cors(), "x-request-id": self.id}
            if b"cache-control" not in names:
                more["cache-control"] = "no-store"
            added = [(name.encode(), value.encode()) for name, value in more.items() if name.encode() not in names]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        body = message.get("body", b"")
        for start in range(0, len(body) - PART, PART):
            await self._send({**message, "body": body[start : start + PART], "more_body": True})
        rest = (len(body) - 1) // PART * PART
        await self._send({**message, "body": body[rest:]} if rest > 0 else message)

    def _check_length(self) -> None:
        length = self.headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self.guard.settings.max_body:
            raise self._too_large()

    def _too_large(self) -> Problem:
        most = self.guard.settings.max_body
        return Problem(413, "body_too_large", f"A request may have at most {most:,} bytes.", None, _CLOSE)

    def _is_preflight(self) -> bool:
        return self.scope["method"] == "OPTIONS" and "access-control-request-method" in self.headers

    def _cors(self) -> dict[str, str]:
        origin = self.headers.get("origin")
        if origin is None or origin not in self.guard.settings.cors:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "GET, POST, PUT, DELETE",
            "access-control-allow-headers": "authorization, content-type, x-request-id",
            "cross-origin-resource-policy": "cross-origin",
            "vary": "Origin",
        }

    async def _fail(self, error: Exception) -> None:
        problem = problems.of(error)
        if problem.status == 500 and not isinstance(error, Problem):
            log.error("request %s failed", self.id, exc_info=error)
        if self.received and not self.read_all:
            problem.headers.update(_CLOSE)  # nobody reads the rest of the body
        if self.status is None:
            body = json.dumps(problem.body()).encode()
            headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
            await self._answer(problem.status, [*headers, (b"content-type", b"application/json")], body)

    async def _answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self.send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    def _log(self) -> None:
        seconds = time.perf_counter() - self.begin
        route = getattr(self.scope.get("route"), "path", None) or "other"
        status = self.status or 499
        self.guard.observe(self.scope["method"], route, status, seconds)
        client = self.scope.get("client") or ("", 0)
        record = {"request_id": self.id, "method": self.scope["method"], "path": _path(self.scope), "status": status}
        access.info(json.dumps({**record, "seconds": round(seconds, 4), "bytes": self.received, "client": client[0]}))


_CLOSE = {"Connection": "close"}


def _digest(key: bytes) -> bytes:
    """Return a hash of a key: all have one length, so that comparing tells nothing of it."""
    return hashlib.sha256(key).digest()


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _path(scope: AsgiScope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _keep_escapes(scope: AsgiScope) -> None:
    """Route by the path as it was sent, so that an id may hold a slash (%2F); routes decode their own parts."""
    raw: bytes = scope.get("raw_path") or b""
    if b"/v1/tables/" in raw:
        scope["path"] = raw.partition(b"?")[0].decode("latin-1")
