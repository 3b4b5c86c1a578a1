"""Let few requests at a time hold decoded images: the others wait for a seat, in order of arrival."""

from __future__ import annotations

import threading

from looktwice.serve import problems
from looktwice.serve.ticket import Ticket

SMALL_SEATS = 4
LARGE_SEATS = 4
"""Large requests that take turns; more would drop each other's prompt prefixes, of which a scorer keeps a few."""


class Seats:
    """The seats of one device. A request keeps its seat until it ends."""

    def __init__(self) -> None:
        self._free = {True: SMALL_SEATS, False: LARGE_SEATS}
        self._lines: dict[bool, list[Ticket]] = {True: [], False: []}
        self._taken: set[Ticket] = set()
        self._news = threading.Condition()
        self._closed = False

    def take(self, ticket: Ticket) -> None:
        """Wait for a seat. Raises the Problem that ends the request meanwhile."""
        line = self._lines[ticket.small]
        with self._news:
            if ticket in self._taken:
                return
            line.append(ticket)
            try:
                self._news.wait_for(lambda: self._closed or ticket.ended is not None or self._first(ticket))
                if self._closed:
                    raise problems.stopping()
                ticket.check()
                self._free[ticket.small] -= 1
                self._taken.add(ticket)
            finally:
                line.remove(ticket)
                self._news.notify_all()

    def leave(self, ticket: Ticket) -> None:
        """Give back the seat of a request that ended, if it had one."""
        with self._news:
            if ticket in self._taken:
                self._taken.remove(ticket)
                self._free[ticket.small] += 1
            self._news.notify_all()

    def wake(self, closed: bool = False) -> None:
        """Let those who wait see whether their request has ended."""
        with self._news:
            self._closed = self._closed or closed
            self._news.notify_all()

    def _first(self, ticket: Ticket) -> bool:
        return self._lines[ticket.small][0] is ticket and self._free[ticket.small] > 0
