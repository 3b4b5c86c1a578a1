"""Change a table for requests: one writer at a time, acknowledged only after the commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from looktwice.serve import problems
from looktwice.serve.problems import Problem
from looktwice.serve.tables import ServedTable

LOCK_SECONDS = 20.0
"""How long a write waits for another process; then it is refused with 503."""

TIDY_EVERY = 32
PREVIEW_SIDE = 512
"""Side of the image that a table keeps of one that came by HTTP: the model looks at it, as there is no file."""

MOST_WAITING = 64


class Writer:
    """The writer of all tables of a server. Writes to one table follow one another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._writes = 0

    def upsert(self, served: ServedTable, items: Sequence[Mapping[str, Any]]) -> Any:
        """Insert or update items and return the library's report. Raises Problem, and like `Table.upsert`."""
        with self._turn(served):
            served.table.encoder = served.encoder
            if not served.table.manifest.previews and any("image" in item for item in items):
                served.table.note_previews(PREVIEW_SIDE)
            report = served.table.upsert(items, wait=LOCK_SECONDS)
            self._tidy(served, len(items))
        return report

    def delete(self, served: ServedTable, ids: Sequence[str]) -> int:
        """Delete items and return how many there were."""
        with self._turn(served):
            found = served.table.delete(ids)
            self._tidy(served, 1)
        return found

    @contextmanager
    def _turn(self, served: ServedTable) -> Iterator[None]:
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise problems.busy(2)
            self._waiting += 1
        try:
            with served.writing:
                yield
        finally:
            served.touch()
            with self._lock:
                self._waiting -= 1

    def _tidy(self, served: ServedTable, items: int) -> None:
        """Merge small files now and then: each write leaves some."""
        self._writes += 1
        if items > TIDY_EVERY or self._writes % TIDY_EVERY == 0:
            served.table.tidy()


def refusal(reason: str, detail: str, param: str) -> Problem:
    """Return the answer for an item that could not be written."""
    return Problem(422, reason.replace("-", "_"), problems.public(f"The item was not written: {detail}."), param)


def not_allowed() -> Problem:
    """Return the answer of a server that only reads."""
    return Problem(403, "read_only", "This server takes no changes; start it with --allow-write.")
