"""Share requests among servers that run the same model, and wait for those that are away."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic_core import to_json

from looktwice.errors import ModelError, ServerError
from looktwice.score.remote import loop
from looktwice.score.remote.endpoint import Endpoint

RETURN_SECONDS = 2.0  # between two tries to reach a server that is away
FAILURES = {False: 16, True: 128}
"""Refused pairs in a row after which the next ones will not fare better, before and after the first good answer."""


@dataclass(frozen=True, slots=True)
class PairRequest:
    """One request: the candidates' rows that its answer holds, and its path and body for a given server.

    Jobs of one `route` go to one server as long as it has room, because it has read their beginning already.
    """

    rows: tuple[int, ...]
    route: bytes
    make: Callable[[Endpoint], tuple[str, dict[str, Any]]]
    request: int = 0


@dataclass(frozen=True, slots=True)
class PairReply:
    """A server's answer to a job."""

    server: Endpoint
    body: dict[str, Any]


Verify: TypeAlias = Callable[[Endpoint], Awaitable[None]]


@dataclass
class EndpointPool:
    """Servers of one model. `verify` is awaited before a server's first request, and again after it was away or
    `check_seconds` have passed; it raises ServerError for a server that runs another model than before."""

    servers: Sequence[Endpoint]
    verify: Verify
    _checked: dict[int, float] = field(default_factory=dict)
    _checking: dict[int, asyncio.Lock] = field(default_factory=dict)
    _marks: dict[int, set[str]] = field(default_factory=dict)
    _failures: int = 0
    _answered: bool = False

    def run(self, jobs: Iterable[PairRequest]) -> Iterator[tuple[PairRequest, PairReply | ServerError]]:
        """Yield jobs with their answers as they come; a pair that a server refuses has an error instead.

        Raises ServerError if no other pair can fare better.
        """
        workers = sum(server.window.most for server in self.servers)
        yield from loop.each(jobs, self._outcome, workers)

    def checked(self, servers: Iterable[Endpoint]) -> None:
        """Note that these servers were verified just now."""
        self._checked |= {id(server): time.monotonic() for server in servers}

    def counts(self) -> dict[str, int]:
        """Return requests, retries, refusals and bytes sent of all servers together."""
        total: Counter[str] = Counter()
        for server in self.servers:
            total += server.counts
        return dict(total)

    async def _outcome(self, job: PairRequest) -> PairReply | ServerError:
        try:
            reply = await self.post(job)
        except ModelError as problem:
            if not isinstance(problem, ServerError):
                return ServerError(str(problem))
            self._failures += 1
            if problem.stops or self._failures >= FAILURES[self._answered]:
                raise
            return problem
        self._failures, self._answered = 0, True
        return reply

    async def post(self, job: PairRequest) -> PairReply:
        """Return the answer of the first server in the job's order that is there; wait if none is."""
        end: float | None = None
        while True:
            last: ServerError | None = None
            for server in self._order(job.route):
                server.tried = time.monotonic()
                try:
                    await self._verified(server)
                    reply = PairReply(server, await self._send(server, job))
                    await self._recognised(reply)
                    return reply
                except ServerError as error:
                    if not server.away:
                        raise
                    self._checked.pop(id(server), None)  # it may come back with another model
                    last = error
            end = end or time.monotonic() + self.servers[0].config.timeout
            if last is not None and time.monotonic() > end:
                raise last
            await asyncio.sleep(RETURN_SECONDS)

    async def _send(self, server: Endpoint, job: PairRequest) -> dict[str, Any]:
        def content() -> tuple[str, bytes]:
            path, body = job.make(server)
            return server.address.base + path, to_json(body)

        url, data = await asyncio.to_thread(content)  # images are encoded here
        return await server.ask("POST", url, data)

    async def _verified(self, server: Endpoint) -> None:
        now = time.monotonic()
        if now - self._checked.get(id(server), float("-inf")) < server.config.check_seconds:
            return
        async with self._checking.setdefault(id(server), asyncio.Lock()):
            if now >= self._checked.get(id(server), float("-inf")):
                await self.verify(server)
                self._checked[id(server)] = time.monotonic()

    async def _recognised(self, reply: PairReply) -> None:
        """Verify the server of an answer whose fingerprint no earlier answer had: several models may answer for it."""
        mark = reply.body.get("system_fingerprint")
        known = self._marks.setdefault(id(reply.server), set())
        if isinstance(mark, str) and mark not in known:
            self._checked.pop(id(reply.server), None)
            await self._verified(reply.server)
            known.add(mark)

    def _order(self, route: bytes) -> list[Endpoint]:
        """Return the servers, the job's own first; a full one gives way to one that is idle.

        Each server has its own hash of the route, so that one that leaves moves only its own queries.
        """
        own = sorted(self.servers, key=lambda s: hashlib.sha256(route + s.address.base.encode()).digest())
        crowded = own[0].window.busy >= int(own[0].window.limit)
        idle = next((s for s in own[1:] if s.window.busy == 0 and not s.away), None) if crowded else None
        order = own if idle is None else [idle, *(s for s in own if s is not idle)]
        resting = [s for s in order if s.resting]
        return [*(s for s in order if s not in resting), *resting]
