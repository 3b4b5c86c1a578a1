"""Send requests to one server: retries for what may pass, sentences for what may not.

An answer that cannot be used never becomes a number: it is retried, or it raises ServerError.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from looktwice.errors import ServerError, UsageError, first_line
from looktwice.score.remote.address import Address
from looktwice.score.remote.config import RemoteConfig
from looktwice.score.remote.keys import ApiKey
from looktwice.score.remote.replies import BUSY, RequestFailure, failure, message, parsed, refusal, retry_after
from looktwice.score.remote.window import RequestWindow

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 8 << 20  # of an answer, which takes a few kilobytes
CONNECT_SECONDS = 10.0
REST_SECONDS = 5.0
LONGEST_PAUSE = 30.0
BRIEF = 4  # attempts at a request that makes a server fail, unlike one that it has no room for


class Endpoint:
    """One server, reached over kept connections from one event loop.

    `counts` adds up requests, retries, refusals (429, 503) and bytes sent. `away` is true from a failed connection to
    the next one that holds; `tried` is when a pool last sent something.
    """

    def __init__(self, address: Address, config: RemoteConfig, key: ApiKey) -> None:
        self.address, self.config, self.key = address, config, key
        self.window = RequestWindow(config.concurrency)
        self.counts: Counter[str] = Counter()
        self.away = False
        self.tried = 0.0
        self._headers = key.headers(address)
        self._names_requests = False
        self._client: httpx.AsyncClient | None = None

    @property
    def resting(self) -> bool:
        """Return whether the server was away a moment ago, so that others come first."""
        return self.away and time.monotonic() - self.tried < REST_SECONDS

    async def get(self, url: str) -> dict[str, Any] | None:
        """Return the JSON object at `url`, or None. Raises ServerError for a server that cannot be used."""
        try:
            return await self.ask("GET", url, None)
        except ServerError as error:
            if self.away or error.status in (401, 402, 403):
                raise
            return None

    async def text(self, url: str) -> str:
        """Return what is at `url` as text, "" if it cannot be had."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                status, _, data = await self._exchange("GET", url, None)
        except (TimeoutError, ServerError, OSError, ValueError, RuntimeError):
            return ""
        return data.decode("utf-8", "replace") if status == 200 else ""

    async def ask(self, method: str, url: str, content: bytes | None, patience: float | None = None) -> dict[str, Any]:
        """Return the JSON object that the server answers.

        Tries again within `patience` seconds (default: the timeout) after 429, 5xx, cut or slow answers; a server that
        takes no connection raises at once, for a pool to try another. Raises ServerError.
        """
        end = time.monotonic() + (self.config.timeout if patience is None else patience)
        reason = ""
        for attempt in range(1 << 30):
            async with self.window:
                found = await self._once(method, url, content, end)
            if not isinstance(found, RequestFailure):
                return found
            # what a server said before tells more than that the time was then up
            reason = f"{reason}, then {found.why}" if found.slow and reason else found.why
            self._give_up(found, reason, attempt, end)
            self.counts["retries"] += 1
            await asyncio.sleep(min(_pause(found, attempt), max(0.0, end - time.monotonic())))
        raise AssertionError

    def _give_up(self, trouble: RequestFailure, reason: str, attempt: int, end: float) -> None:
        """Raise ServerError if no further attempt is due."""
        if trouble.away:
            raise ServerError(f"{self.address.base} cannot be reached ({trouble.why}); start the server.", stops=True)
        late = time.monotonic() + trouble.pause >= end
        if late or (trouble.status not in BUSY and attempt + 1 >= BRIEF):
            tried = f"after {attempt + 1} attempt{'s' * (attempt > 0)}"
            raise ServerError(
                f"{self.address.base} gave no usable answer {tried} ({reason}); try again later, or raise --timeout."
            )

    async def _once(self, method: str, url: str, content: bytes | None, end: float) -> dict[str, Any] | RequestFailure:
        import httpx

        begun, name = time.monotonic(), uuid4().hex
        self.counts["requests"] += 1
        self.counts["bytes_sent"] += len(content or b"")
        try:
            async with asyncio.timeout(max(0.05, end - begun)):
                status, headers, data = await self._exchange(method, url, content, name)
        except TimeoutError:
            return RequestFailure(f"no answer within {self.config.timeout:g} s", slow=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            self.away = True
            return RequestFailure(_named(error), away=True)
        except httpx.TransportError as error:
            return RequestFailure(f"the answer broke off: {_named(error)}")
        self.away = False
        if status == 200:
            found = parsed(data, self.key)
            if isinstance(found, RequestFailure):
                return found
            if not self._is_own(found, name):
                return RequestFailure("it sent the answer to another request")
            failed = failure(found)
            if failed is None:
                self.window.answered(time.monotonic() - begun)
                return found
            status = failed
        return self._trouble(status, headers, data, url)

    def _is_own(self, found: Mapping[str, Any], name: str) -> bool:
        """Return whether an answer names its request. vLLM's do; servers whose answers never did are believed."""
        if name in str(found.get("id", "")):
            self._names_requests = True
            return True
        return not self._names_requests or "id" not in found

    async def _exchange(
        self, method: str, url: str, content: bytes | None, name: str = ""
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body; `name` is the request's own, which some servers repeat."""
        if self._client is None:
            self._client = _client(self.config, self._headers)
        async with self._client.stream(method, url, content=content, headers={"X-Request-Id": name}) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":  # unpacked, it may have any size
                raise ServerError(
                    f"{self.address.base} compresses its answers, which it was asked not to; switch compression off.",
                    True,
                )
            data = bytearray()
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) > MOST_BYTES:
                    raise ServerError(
                        f"{self.address.base} sends more than {MOST_BYTES >> 20} MB for one pair; check the address."
                    )
            return answer.status_code, answer.headers, bytes(data)

    def _trouble(self, status: int, headers: Mapping[str, str], data: bytes, url: str) -> RequestFailure:
        """Return the trouble of a status that may pass; raise ServerError for any other."""
        said = message(data, self.key)
        if status in BUSY or (status >= 500 and status != 501):
            pause = retry_after(headers)
            if status in (429, 503):
                self.counts["refusals"] += 1
                self.window.refused(min(pause, LONGEST_PAUSE))
            return RequestFailure(f"status {status}: {said}", status, pause)
        raise refusal(status, said, self.address, url, bool(self.key))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _client(config: RemoteConfig, headers: Mapping[str, str]) -> httpx.AsyncClient:
    import httpx

    from looktwice import __version__

    # the environment's proxies are not used: a proxy sees every image, so it must be asked for by name
    try:
        return httpx.AsyncClient(
            verify=_tls(),
            trust_env=False,
            proxy=config.proxy,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
            headers={
                "User-Agent": f"looktwice/{__version__}",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                **headers,
            },
        )
    except (ValueError, httpx.InvalidURL):
        raise UsageError("--proxy is not the URL of a proxy; write it as http://HOST:PORT.") from None


def _pause(trouble: RequestFailure, attempt: int) -> float:
    """Return seconds to wait: what the server asked for, or twice as long each time; spread, so that clients part."""
    return max(trouble.pause, min(LONGEST_PAUSE, 0.25 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1.0))


def _named(error: BaseException) -> str:
    return first_line(error) if str(error).strip() else type(error).__name__
