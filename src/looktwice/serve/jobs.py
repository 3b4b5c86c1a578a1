"""Run the blocking work of requests on threads, answer identical ones once, and stop what nobody waits for any more."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from looktwice.serve import problems
from looktwice.serve.device_queue import DeviceQueue
from looktwice.serve.problems import Problem
from looktwice.serve.ticket import Ticket, current

log = logging.getLogger("looktwice.serve")

Emit: TypeAlias = Callable[[str, Any], None]
Work: TypeAlias = Callable[[Emit], Any]


class Admission:
    """Admits requests until their pairs fill the queue."""

    def __init__(self, most_pairs: int, most_requests: int, queue: DeviceQueue) -> None:
        self.most_pairs, self.most_requests, self._queue = most_pairs, most_requests, queue
        self.pairs = self.requests = 0
        self.open = True

    def enter(self, pairs: int) -> None:
        """Count a request in. Raises Problem: 429 for a full queue, 503 while stopping, 413 for too many pairs."""
        if not self.open:
            raise problems.stopping()
        if pairs > self.most_pairs:
            raise Problem(413, "too_many_pairs", f"A request may have at most {self.most_pairs:,} pairs.")
        if self.pairs + pairs > self.most_pairs or self.requests >= self.most_requests:
            raise problems.busy(self.pairs / max(1.0, self._queue.rate or 50.0))
        self.pairs += pairs
        self.requests += 1

    def leave(self, pairs: int) -> None:
        """Count a request out."""
        self.pairs -= pairs
        self.requests -= 1


class Job:
    """Work in progress, which any number of readers follow. It ends early when the last reader has left."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.events: list[tuple[str, Any]] = []
        self.readers = 0
        self.result: Any = None
        self.problem: Problem | None = None
        self.finished = False
        self._news = asyncio.Event()

    def add(self, name: str, data: Any) -> None:
        """Add an event; on the loop's thread only."""
        self.events.append((name, data))
        self._wake()

    def finish(self, result: Any, problem: Problem | None) -> None:
        """Set the result; on the loop's thread only."""
        self.result, self.problem, self.finished = result, problem, True
        self._wake()

    async def follow(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield events from the first one on, until the work ends."""
        place = 0
        while True:
            while place < len(self.events):
                place += 1
                yield self.events[place - 1]
            if self.finished:
                return
            await self._news.wait()

    async def wait(self) -> Any:
        """Return the result. Raises the Problem that the work ended with."""
        while not self.finished:
            await self._news.wait()
        if self.problem is not None:
            raise self.problem
        return self.result

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Jobs:
    """All work in progress on one device."""

    def __init__(self, queue: DeviceQueue, gate: Admission) -> None:
        self.queue, self.gate = queue, gate
        self.shared = 0
        self._running: dict[Any, Job] = {}
        self._all: set[Job] = set()
        self._threads = ThreadPoolExecutor(gate.most_requests, thread_name_prefix="request")

    def start(self, key: Any, pairs: int, seconds: float, work: Work) -> Job:
        """Return the job for a request: a running one of the same `key`, or a new one.

        `work` runs on a thread of its own and may call its argument to tell readers of progress. Raises Problem as
        `Admission.enter`.
        """
        known = self._running.get(key)
        if known is not None and not known.finished and known.ticket.ended is None:
            self.shared += 1
            known.readers += 1
            return known
        self.gate.enter(pairs)
        job = Job(Ticket(pairs, seconds))
        job.readers = 1
        self._running[key] = job
        self._all.add(job)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._end, job, problems.late(seconds))

        def done(result: Any, problem: Problem | None) -> None:
            timer.cancel()
            self.gate.leave(pairs)
            self._all.discard(job)
            if self._running.get(key) is job:
                del self._running[key]
            if not job.finished:
                job.finish(result, problem)

        context = contextvars.copy_context()
        self._threads.submit(context.run, self._run, loop, job, work, done)
        return job

    def counts(self) -> tuple[int, int]:
        """Return how many requests had a turn on the device, and how many wait for their first."""
        wanting = [job for job in list(self._all) if job.ticket.pairs]
        begun = sum(job.ticket.begun for job in wanting)
        return begun, len(wanting) - begun

    def leave(self, job: Job) -> None:
        """Count a reader out; without readers the work stops before the next block."""
        job.readers -= 1
        if job.readers <= 0 and not job.finished:
            self._end(job, Problem(499, "client_left", "The client left."))

    def stop_waiting(self) -> None:
        """Refuse new work, and answer 503 to requests that have not had a turn yet."""
        self.gate.open = False
        for job in list(self._all):
            if job.ticket.pairs and not job.ticket.begun:
                self._end(job, problems.stopping())

    def close(self) -> None:
        """End everything."""
        for job in list(self._all):
            self._end(job, problems.stopping())
        self.queue.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _end(self, job: Job, why: Problem) -> None:
        """Answer the readers now; the work itself ends before its next block."""
        job.ticket.end(why)
        self.queue.sweep()
        if not job.finished:
            job.finish(None, why)

    def _run(
        self, loop: asyncio.AbstractEventLoop, job: Job, work: Work, done: Callable[[Any, Problem | None], None]
    ) -> None:
        def emit(name: str, data: Any) -> None:
            loop.call_soon_threadsafe(job.add, name, data)

        current.set(job.ticket)
        result, problem = None, None
        try:
            job.ticket.check()
            result = work(emit)
        except BaseException as error:
            problem = problems.of(error)
            if problem.status >= 500 and not isinstance(error, Problem):
                log.exception("request failed: %s", type(error).__name__)
        finally:
            self.queue.seats.leave(job.ticket)
        if not loop.is_closed():
            loop.call_soon_threadsafe(done, result, problem)
