"""Hold everything that the routes of one server share: tables, model, queue, limits."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import Request

from looktwice.errors import LooktwiceError
from looktwice.score import Scorer
from looktwice.serve import problems
from looktwice.serve.device_queue import DeviceQueue
from looktwice.serve.holding import HeldBytes
from looktwice.serve.jobs import Admission, Job, Jobs, Work
from looktwice.serve.media import Media, begin_request
from looktwice.serve.metrics import Metrics
from looktwice.serve.problems import Problem
from looktwice.serve.scorers import PooledEncoder, QueuedReranker
from looktwice.serve.settings import Settings
from looktwice.serve.tables import Tables
from looktwice.serve.writing import Writer
from looktwice.types import Encoder, Item

log = logging.getLogger("looktwice.serve")
R = TypeVar("R")
ENCODING, DECODING, WRITING, FETCHERS = 2, 4, 4, 32


class Service:
    """The shared state of a server. `start` loads tables and models; until then routes answer 503."""

    def __init__(self, settings: Settings, scorer: Scorer | None = None) -> None:
        self.settings = settings
        self._mllm: Scorer | str | None = scorer or settings.mllm
        self.queue = DeviceQueue()
        self.gate = Admission(settings.max_queued_pairs, settings.max_requests, self.queue)
        self.jobs = Jobs(self.queue, self.gate)
        self.memory = HeldBytes(settings.max_held)
        self.media = Media(settings.max_image, settings.max_pixels, settings.max_text, settings.allow_urls)
        self.encoding = ThreadPoolExecutor(ENCODING, thread_name_prefix="encode")
        self.writing = ThreadPoolExecutor(WRITING, thread_name_prefix="write")
        self.writer = Writer()
        self.reading = ThreadPoolExecutor(FETCHERS if settings.allow_urls else DECODING, thread_name_prefix="read")
        self.small = ThreadPoolExecutor(DECODING, thread_name_prefix="small")
        self.metrics = Metrics(self.queue, self.jobs, self.memory, lambda: self.ready)
        self.reranker: QueuedReranker | None = None
        self._tables: Tables | None = None
        self.failed: Exception | None = None
        self.watched = False  # a caller will raise what loading raised

    @property
    def tables(self) -> Tables:
        """Return the tables. Raises Problem (503) while they load."""
        if self._tables is None:
            raise problems.loading()
        return self._tables

    @property
    def ready(self) -> bool:
        """Return whether tables and weights are loaded and the server is not stopping."""
        return self._tables is not None and self.gate.open

    def start(self) -> None:
        """Open the tables and load the weights. Raises what they raise."""
        chosen = self.settings
        reranker = None
        if self._mllm is not None:
            how = {name: getattr(chosen, name) for name in ("device", "dtype", "batch_size", "resolution", "max_tiles")}
            reranker = QueuedReranker(self._mllm, self.queue, prompt=chosen.prompt, cache=chosen.score_cache, **how)
            scorer = reranker.scorer("object" if chosen.prompt == "auto" else chosen.prompt)
        tables = Tables(chosen, reranker, lambda encoder: PooledEncoder(encoder, self.encoding))
        for served in tables:  # the first query must not pay for it
            _warm_up(served.encoder)
            if reranker is not None:  # a server that refuses every search must not say that it is ready
                served.newest().retriever.loader.check(scorer)
        self.reranker, self._tables = reranker, tables

    def close(self) -> None:
        """End all work."""
        self.jobs.close()
        for pool in (self.encoding, self.small, self.reading, self.writing):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.reranker is not None:
            self.reranker.close()

    def demand_reranker(self) -> QueuedReranker:
        """Return the reranker. Raises Problem while loading, and on a server for coarse search only."""
        self.tables  # noqa: B018
        if self.reranker is None:
            raise Problem(501, "no_model", "This server has no multimodal model; start it with --mllm.")
        return self.reranker

    async def quick(self, work: Callable[..., R], *arguments: Any) -> R:
        """Run short blocking work beside the loop: decoding, look-ups."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.small, lambda: work(*arguments))

    async def read(self, work: Callable[..., R], *arguments: Any) -> R:
        """Read what a request brings: on other threads than look-ups, as a URL may take its time."""

        def run() -> R:
            begin_request()
            return work(*arguments)

        context = contextvars.copy_context()  # so that what is read counts to this request
        return await asyncio.get_running_loop().run_in_executor(self.reading, lambda: context.run(run))

    async def write(self, work: Callable[[], R]) -> R:
        """Run a change of a table. A write that has begun ends even if the client leaves."""
        if not self.gate.open:
            raise problems.stopping()
        return await asyncio.get_running_loop().run_in_executor(self.writing, work)

    async def answer(self, request: Request, key: Any, pairs: int, seconds: float | None, work: Work) -> Any:
        """Run work as a job and return its result. Raises Problem; the work stops if the client leaves."""
        async with self.job(key, pairs, seconds, work) as job:
            waiting = asyncio.ensure_future(job.wait())
            leaving = asyncio.ensure_future(left(request))
            try:
                await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    return waiting.result()
                raise Problem(499, "client_left", "The client left.")
            finally:
                waiting.cancel()
                leaving.cancel()

    @asynccontextmanager
    async def job(self, key: Any, pairs: int, seconds: float | None, work: Work) -> AsyncIterator[Job]:
        """Run work as a job for as long as the context lasts."""
        job = self.jobs.start(key, pairs, min(seconds or self.settings.timeout_s, self.settings.timeout_s), work)
        try:
            yield job
        finally:
            self.jobs.leave(job)


def _warm_up(encoder: Encoder) -> None:
    from PIL import Image

    with suppress(LooktwiceError):  # an encoder of texts only
        encoder.encode([Item("warm-up", image=Image.new("RGB", (64, 64)))])


async def left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """Return the service of the app that got a request."""
    service: Service = request.app.state.service
    return service
