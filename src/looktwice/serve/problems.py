"""Turn every error into `{"error": {"type", "code", "message", "param"}}`, which tells a stranger no secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from looktwice.errors import (
    Locked,
    LooktwiceError,
    MediaError,
    MissingDependency,
    ModelError,
    QueryError,
    StoreError,
    UnknownName,
    UsageError,
)

_PATH = re.compile(r"(?:file://)?(?<![\w/.])/(?:[^\s'\"<>:;,]+/)+[^\s'\"<>:;,]*")
_MOST = 500


class Problem(Exception):
    """An answer other than success: HTTP status, fixed code, a sentence, and the part of the request it is about."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        error = {"type": _type(self.status), "code": self.code, "message": self.message, "param": self.param}
        return {"error": error}


def busy(seconds: float) -> Problem:
    """Return the refusal of a full queue."""
    wait = str(max(1, round(seconds)))
    return Problem(429, "queue_full", f"The queue is full; try again in {wait} s.", headers={"Retry-After": wait})


def loading() -> Problem:
    """Return the refusal of a server that is not ready yet."""
    return Problem(503, "loading", "The server is still loading; try again in a moment.", headers={"Retry-After": "2"})


def stopping() -> Problem:
    """Return the refusal of a server that stops."""
    return Problem(503, "stopping", "The server is stopping; try again in a moment.", headers={"Retry-After": "5"})


def late(seconds: float) -> Problem:
    """Return the answer to a request whose time is up."""
    return Problem(
        504, "timeout", f"The time limit of {seconds:g} s is over; ask for fewer pairs or more time.", "timeout_s"
    )


def of(error: BaseException, param: str | None = None) -> Problem:
    """Return the answer to any error. An unexpected one says nothing of what happened inside."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, LooktwiceError):
        status, code = _known(error)
        if status == 500:
            return Problem(500, code, "The server could not do this; its log has the reason.", param)
        headers = {"Retry-After": "2"} if status == 503 else None
        return Problem(status, code, public(str(error)), param, headers)
    if isinstance(error, MemoryError):
        return Problem(503, "out_of_memory", "Not enough memory; send fewer or smaller images.", param)
    return Problem(500, "internal", "The server failed; its log has the reason.")


def public(message: str) -> str:
    """Return a message without places on this machine.

    >>> public("Image '/home/me/a.jpg' cannot be read")
    "Image '…' cannot be read"
    """
    return _PATH.sub("…", message)[:_MOST]


def _known(error: LooktwiceError) -> tuple[int, str]:
    if isinstance(error, MediaError):
        return 422, f"image_{error.reason}".replace("-", "_")
    if isinstance(error, UnknownName):
        return 400, "unknown_name"
    if isinstance(error, MissingDependency):
        return 500, "missing_package"
    if isinstance(error, QueryError):
        return 422, "unusable_query"
    if isinstance(error, UsageError):
        return 400, "refused"
    if isinstance(error, Locked):
        return 503, "table_locked"
    if isinstance(error, StoreError):
        return (507, "disk_full") if "disk is full" in str(error) else (500, "table_error")
    return (500, "model_error") if isinstance(error, ModelError) else (500, "internal")


def _type(status: int) -> str:
    names = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return names.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
