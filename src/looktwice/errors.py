"""Every error that looktwice raises on purpose.

LooktwiceError                exit code 1
├── UsageError                2   the call or its arguments are wrong, or what was asked is refused
│   ├── UnknownName           2   a model, prompt, column, codec… that does not exist; names the near ones
│   ├── QueryError            2   one query cannot be used; the others of a call can
│   ├── Mismatch              2   an index or cache made with another encoder, MLLM, codec or preprocessing
│   └── MissingDependency     2   an optional package is not installed; says how to get it
├── MediaError                1   one file cannot be read as an image; becomes a ledger line
├── StoreError                1   the table cannot be read or written
│   └── Locked                1   another process is writing
├── TooManyFailures           3   --max-failures was reached
└── ModelError                1   a model gave no usable answer
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any


class LooktwiceError(Exception):
    """Base of all. The message is one plain sentence that says what to do."""

    exit_code = 1


class UsageError(LooktwiceError, ValueError):
    """The call is wrong or what it asks for is refused."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str], advice: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}."
        super().__init__(f"There is no {kind} called {name!r}; {hint}{advice and ' ' + advice}")


class QueryError(UsageError):
    """One query cannot be used. `query` is its id."""

    def __init__(self, message: str, query: str) -> None:
        super().__init__(message)
        self.query = query


class Mismatch(UsageError):
    """Two things that must be the same are not; the message names both."""


class MissingDependency(UsageError):
    """An optional package is needed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'looktwice[{extra}]'.")


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, for use inside a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".:")[:200]


def demand_list(values: object, what: str) -> None:
    """Raise UsageError where one text stands for a list of them, as it would be taken letter by letter."""
    if isinstance(values, str):
        raise UsageError(f"{what} must be a list, not the text {values!r}; put it into [ ].")


class MediaError(LooktwiceError):
    """One file cannot be used. `reason` is a short fixed word for counting, `detail` says more.

    A detail is kept in the ledger. Servers and lists have a say in it, so it is cut after MOST_DETAIL characters.
    """

    MOST_DETAIL = 500

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        detail = detail if len(detail) <= self.MOST_DETAIL else detail[: self.MOST_DETAIL] + "…"
        self.detail = detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class StoreError(LooktwiceError):
    """The table cannot be read or written."""


class Locked(StoreError):
    """Another process is writing to this table."""


class TooManyFailures(LooktwiceError):
    """More items failed than the user allows."""

    exit_code = 3


class ModelError(LooktwiceError):
    """A model cannot be loaded as asked, or gave no usable answer."""


# --- names that changed, which work for one more release ------------------------------------------------------------


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller's caller that a name has changed."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release.", DeprecationWarning, 3)


def renamed_keyword(given: Mapping[str, Any], old: str, new: str, value: Any) -> Any:
    """Return what the old keyword was given, or `value` of the new one where the old one was not used."""
    if old not in given:
        return value
    warn_renamed(old, new)
    return given[old]
