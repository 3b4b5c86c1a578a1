"""Read what a server sends: an object, an error's message, or the sentence for a status that no retry changes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from looktwice.errors import ServerError, first_line
from looktwice.score.remote.address import Address
from looktwice.score.remote.keys import ApiKey

BUSY = (408, 409, 425, 429, 503, 529)
MOST_TOKENS = 1 << 31
"""Most tokens that a server can say it has read for one request."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why an attempt failed although the next one may pass.

    `pause`: seconds that the server asked for. `slow`: the time was up.
    """

    why: str
    status: int = 0
    pause: float = 0.0
    away: bool = False
    slow: bool = False


def refusal(status: int, said: str, address: Address, url: str, keyed: bool) -> ServerError:
    """Return the error for a status that no retry changes."""
    where = address.base
    if status in (401, 403):
        key = "does not accept the key" if keyed else "asks for a key"
        return ServerError(
            f"{where} {key} (status {status}); put it into LOOKTWICE_API_KEY, or name a file with --api-key-file.",
            True,
            status,
        )
    if status == 402:
        return ServerError(f"{where} asks for payment (status 402: {said}); add credit.", True, status)
    if status in (404, 405, 501):
        path = url.removeprefix(address.root)
        return ServerError(
            f"{where} has no {path} for this model (status {status}: {said}); check the address and the model.",
            True,
            status,
        )
    if 300 <= status < 400:
        return ServerError(f"{where} points to another address (status {status}); name that address.", True, status)
    if status == 413 or _about(said, "image", "too large", "too big", "exceeds", "pixels"):
        return ServerError(
            f"The pair is too large for the server (status {status}: {said}); lower --resolution.", False, status
        )
    if _about(said, "context", "length", "maximum", "too long"):
        return ServerError(
            f"The pair is too long for the server's context (status {status}: {said}); lower --resolution, or serve "
            "the model with a longer one.",
            False,
            status,
        )
    return ServerError(f"{where} refused the request (status {status}: {said}).", False, status)


def _about(said: str, topic: str, *words: str) -> bool:
    text = said.lower()
    return topic in text and any(word in text for word in words)


def parsed(data: bytes, key: ApiKey) -> dict[str, Any] | RequestFailure:
    """Return the object of a good answer, without the key should it quote it."""
    try:
        found = key.hidden_in(json.loads(data))
    except (ValueError, RecursionError):
        return RequestFailure(f"it sent {_kind(data, 'no JSON')}")
    if isinstance(found, list):  # how some re-rankers answer
        return {"results": found}
    return found if isinstance(found, dict) else RequestFailure("it sent JSON of another shape")


def failure(found: Mapping[str, Any]) -> int | None:
    """Return the status of an error that came with status 200, as some gateways send it; None for an answer."""
    error = found.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def message(data: bytes, key: ApiKey) -> str:
    """Return what an error's body says, as one short line without the key."""
    try:
        found = key.hidden_in(json.loads(data))
    except (ValueError, RecursionError):
        return _kind(data, "no explanation")
    for _ in range(3):
        if isinstance(found, Mapping):
            found = next((found[name] for name in ("error", "message", "detail", "msg") if found.get(name)), None)
        if isinstance(found, list) and found:
            found = found[0]
    return first_line(ValueError(found)) if isinstance(found, str) and found.strip() else "no explanation"


def tokens_read(reply: Mapping[str, Any]) -> int | None:
    """Return how many tokens a server says it has read for an answer; None if it does not say."""
    usage = reply.get("usage")
    used = usage if isinstance(usage, Mapping) else {}
    count = next((used[name] for name in ("prompt_tokens", "input_tokens", "total_tokens") if name in used), None)
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < MOST_TOKENS else None


def _kind(data: bytes, other: str) -> str:
    return "a web page" if data.lstrip()[:1] == b"<" else other


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date; 0 without a usable one."""
    text = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(text)) if text else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
