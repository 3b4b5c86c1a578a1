"""Wrap LanceDB for the rest of the store: late import, plain errors, safe SQL."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from looktwice.buckets import known_reason, parse_address
from looktwice.errors import BucketError, Damaged, LooktwiceError, StoreError, UnknownName, UsageError
from looktwice.store.conditions import DECLARE, Where, compile_where, parse_where
from looktwice.store.filters import check, quote
from looktwice.store.location import Location
from looktwice.types import text_is_utf8

T = TypeVar("T")

MISSING = "files of the table are missing; restore them from a copy, or index into a new table."

_RUST_PLACE = re.compile(r",? ?(at )?/\S*\.rs:\d+(:\d+)?")
_NOT_FOUND = re.compile(r"\bNot found: .*\.lance\b|\bTable '\w+' was not found")
_CONFLICT = re.compile(
    "[Cc]ommit conflict|[Cc]oncurrent writers|Retryable|(preempted by|incompatible with) concurrent|already set"
)
_ATTEMPTS = 12
_SHOWN = 300  # characters of a filter, and of what is wrong with it, that a message quotes
_NO_COLUMN = re.compile(r"No field named \"?([^.,\s\"]+)\"?")


_process: int | None = None  # the one that LanceDB runs in: the first that opened a table


def connect(location: Location | None) -> Any:
    """Open the database of a location, or an empty one in memory.

    LanceDB is imported only here, because that takes more than a second.
    """
    global _process
    refuse_forked()
    os.environ.setdefault("LANCE_LOG", "error")  # its warnings quote a store's answers
    import lancedb

    _process = os.getpid()
    if location is None:
        return lancedb.connect("memory://")
    return lancedb.connect(location.path, storage_options=location.storage_options)


def make_table(database: Any, name: str, schema: Any, key: str) -> Any:
    """Make an empty table, unless another process has just made it, and return its handle."""
    try:
        made = database.create_table(name, schema=schema)
    except ValueError as error:
        if "already exists" not in str(error):
            raise
        made = database.open_table(name)
    if made.schema.names != schema.names or made.schema.types != schema.types:
        raise UsageError(f"An unfinished table of another kind is here; delete its {name}.lance and try again.")
    retry(lambda: _declare(database.open_table(name), key))
    return database.open_table(name)


def _declare(table: Any, key: str) -> None:
    """Declare the key of a table; without one two processes that merge the same ids double rows (LanceDB 0.40)."""
    if not any(b"primary-key" in name for name in table.schema.field(key).metadata or ()):
        table.set_unenforced_primary_key([key])


def upsert(table: Any, key: str, data: Any) -> None:
    """Insert rows in one commit; they replace those of the same key."""
    insert = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
    retry(lambda: insert.execute(data))


def remove(table: Any, where: str) -> int:
    """Delete the rows that match a condition; write no version if none does. Return how many were deleted."""
    if not table.count_rows(where):
        return 0
    return int(retry(lambda: table.delete(where)).num_deleted_rows)


def retry(commit: Callable[[], T]) -> T:
    """Run a commit, again if another writer's commit came in between; it must do the same when it is repeated."""
    for attempt in range(_ATTEMPTS):
        try:
            return commit()
        except (OSError, RuntimeError, ValueError) as error:
            if not is_conflict(error) or attempt == _ATTEMPTS - 1:
                raise
        time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))
    raise AssertionError


def is_conflict(error: BaseException) -> bool:
    """Return whether a commit failed only because another writer's came in between."""
    return _CONFLICT.search(str(error)) is not None


def refuse_forked() -> None:
    """Raise UsageError in a process that was forked after a table was opened: LanceDB's threads are not in the child.

    There, a call of LanceDB may answer, hang, or end the process with signal 11.
    """
    if _process is not None and os.getpid() != _process:
        raise UsageError(
            "This process was forked after a table was opened, which LanceDB does not support; "
            "open tables after the fork, or start processes with 'spawn'."
        )


PANIC = "RustPanic"
"""The class of an error inside LanceDB, which damaged files can cause; it cannot be imported."""


@contextmanager
def plain_errors(place: object, doing: str) -> Iterator[None]:
    """Turn errors of LanceDB, Arrow or the disk while `doing` something into a StoreError of one sentence.

    Every call of LanceDB runs inside this context, so it also refuses forked processes.
    """
    refuse_forked()
    try:
        yield
    except LooktwiceError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | ValueError) and type(error).__name__ != PANIC:
            raise
        if parse_address(place) and (reason := known_reason(error)):
            raise BucketError(f"{doing} failed in {place}: {reason}") from None
        kind = Damaged if _NOT_FOUND.search(str(error)) else StoreError
        raise kind(_sentence(place, doing, error)) from error


@contextmanager
def filtering(where: Where | None, columns: Mapping[str, type]) -> Iterator[str | None]:
    """Yield the user's filter as checked SQL; no other form may reach the database.

    Turns every error about the filter, of this check or of the database, into a UsageError that names the columns.
    """
    try:
        yield _condition(where, columns)
    except ValueError as error:
        if where is None or isinstance(error, LooktwiceError):
            raise
        text = " ".join(_RUST_PLACE.sub("", str(error)).split())
        if found := _NO_COLUMN.search(text):
            raise UnknownName("column", found[1], columns, DECLARE) from None
        cause = re.split("sql parser error: |user input: |Invalid input, ", text)[-1].rstrip(")., ")[:_SHOWN]
        shown = str(where) if len(str(where)) <= _SHOWN else str(where)[:_SHOWN] + "…"
        raise UsageError(f"The filter {shown!r} cannot be used ({cause}); columns: {', '.join(columns)}.") from None


def _condition(where: Where | None, columns: Mapping[str, type]) -> str | None:
    """Return the checked filter in parentheses, so that the database reads all of it or refuses it."""
    if where is None:
        return None
    if isinstance(where := parse_where(where), Mapping):
        where = compile_where(where, columns)
    if not isinstance(where, str):
        raise UsageError(f"A filter must be SQL text or a dict, not {type(where).__name__}; write one: year > 2020")
    if not where.strip():
        raise UsageError("The filter is empty; leave it out or write one such as: year > 2020")
    check(where)
    return f"({where}\n)"


def is_in(column: str, values: Iterable[str]) -> str:
    """Return `column IN ('…', '…')`; without values, a condition that is never true.

    Values with lone surrogates are left out: they cannot be stored as UTF-8, so no row has one.
    """
    literals = ",".join(quote(value) for value in values if text_is_utf8(value))
    return f"{column} IN ({literals})" if literals else "false"


def batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` values."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part


def _sentence(place: object, doing: str, error: Exception) -> str:
    text = _RUST_PLACE.sub("", str(error)).strip() or type(error).__name__
    if "No space left" in text or "os error 28" in text or getattr(error, "errno", None) == 28:
        return f"The disk is full, so {doing} failed and left {place} unchanged; free some space and run it again."
    if _NOT_FOUND.search(text):
        return f"{doing} failed in {place}: {MISSING} If another process has purged the table, just open it again."
    if "Permission denied" in text or "Read-only file system" in text:
        return f"{place} is not writable, so {doing} failed; check its permissions."
    return f"{doing} failed in {place}: {text.splitlines()[0][:300]}"
