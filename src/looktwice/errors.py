"""Define every error that looktwice raises on purpose.

LooktwiceError                exit code 1
├── UsageError                2   the call or its arguments are wrong, or what was asked is refused
│   ├── UnknownName           2   a model, prompt, column, codec… does not exist; names similar ones
│   ├── QueryError            2   one query is unusable; the others of a call are not affected
│   ├── Mismatch              2   an index or cache was made with another encoder, MLLM, codec or preprocessing
│   └── MissingDependency     2   an optional package is not installed; says how to get it
├── MediaError                1   one file cannot be read as an image; becomes a ledger line
├── StoreError                1   the table cannot be read or written; the disk is full
│   ├── Damaged               2   a file of a table, run or cache is not what looktwice wrote
│   ├── BucketError           2   a bucket does not exist, refuses the credentials, or does not answer
│   └── Locked                2   another process is writing
├── TooManyFailures           3   --max-failures was reached, or a part of the work lost its worker three times
└── ModelError                1   a model gave no usable answer
    └── ServerError           1   a server refused a request, is full, failed, or does not answer
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any


class LooktwiceError(Exception):
    """The base of all errors. The message is one plain sentence: problem; fix."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by what it holds, as subclasses compose their message from other arguments."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[LooktwiceError], args: tuple[Any, ...], state: dict[str, Any]) -> LooktwiceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class UsageError(LooktwiceError, ValueError):
    """A wrong call, or a refused request."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that does not exist. `meant` is what the name stands for elsewhere."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], advice: str = "", *, meant: str | None = None
    ) -> None:
        known = sorted(known)
        near = [meant] if meant else difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}."
        super().__init__(f"Unknown {kind} {name!r}; {hint}{advice and ' ' + advice}")


class QueryError(UsageError):
    """An unusable query. `query` is its id."""

    def __init__(self, message: str, query: str) -> None:
        super().__init__(message)
        self.query = query


class Mismatch(UsageError):
    """A difference between two things that must be the same; the message names both."""


class MissingDependency(UsageError):
    """A missing optional package."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'looktwice[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, for use inside a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".:")[:200]


def demand_list(values: object, what: str) -> None:
    """Raise UsageError if `values` is one text instead of a list, as it would be read letter by letter."""
    if isinstance(values, str):
        raise UsageError(f"{what} must be a list, not the text {values!r}; put it in [ ].")


class MediaError(LooktwiceError):
    """An unusable file. `reason` is a short fixed word for counting, `detail` a sentence about the file.

    The ledger stores the detail. Servers and lists can influence it, so it is cut after MOST_DETAIL characters.
    """

    MOST_DETAIL = 500

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        detail = detail if len(detail) <= self.MOST_DETAIL else detail[: self.MOST_DETAIL] + "…"
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class StoreError(LooktwiceError):
    """A table that cannot be read or written."""


class Damaged(StoreError):
    """A file that is not what looktwice wrote: changed by hand, cut, of another kind, or a link."""

    exit_code = 2


class BucketError(StoreError):
    """A bucket that cannot be read or written."""

    exit_code = 2


class Locked(StoreError):
    """A table to which another process is writing."""

    exit_code = 2


class TooManyFailures(LooktwiceError):
    """More items failed than the user allows, or workers were lost again and again."""

    exit_code = 3

    @classmethod
    def beyond(cls, most: int, failed: str, table: object) -> TooManyFailures:
        """Return the error of a run that `most` failures stop; `failed` says how many of what failed."""
        return cls(
            f"{failed}, more than the {most} that max_failures (--max-failures) allows; see the reasons with: "
            f"looktwice ledger {table}"
        )


class ModelError(LooktwiceError):
    """A model that cannot be loaded as requested, or that gave no usable answer."""


class ServerError(ModelError):
    """A server that refused a request, is full, failed, or does not answer.

    `stops`: no other request can fare better. `status`: HTTP's, 0 without an answer. `code`: the server's word for it.
    `retry_after`: the seconds to wait, if the server says so.
    """

    def __init__(
        self, message: str, stops: bool = False, status: int = 0, *, code: str = "", retry_after: str | None = None
    ) -> None:
        super().__init__(message)
        self.stops, self.status, self.code = stops, status, code
        self.retry_after = (
            int(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 10 else None
        )


# --- names that changed, which work for one more release ------------------------------------------------------------


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller's caller that a name has changed."""
    warnings.warn(f"{old} is deprecated and leaves with the next release; use {new}.", DeprecationWarning, 3)


def renamed_keyword(given: Mapping[str, Any], old: str, new: str, value: Any) -> Any:
    """Return the value of the old keyword if it was given, else `value` of the new one."""
    if old not in given:
        return value
    if value is not None:
        raise TypeError(f"{old} is the old name of {new}; pass only {new}")
    warn_renamed(old, new)
    return given[old]
