"""`POST /v1/search`: hits as one answer, or as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from looktwice.serve.jobs import Job
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import SearchRequest, SearchResponse
from looktwice.serve.searching import Search
from looktwice.serve.service import Service, service_of
from looktwice.types import Item

router = APIRouter()


@router.post("/v1/search", response_model=SearchResponse, summary="Search a table.", tags=["search"])
async def search(asked: SearchRequest, request: Request) -> Response:
    """Find the items nearest to a query, and let the model look at the best of them again.

    With `stream` the answer is a row of server-sent events: `first` at once, `scores` block by block, then `end`, or
    `error`.
    """
    service = service_of(request)
    served = service.tables.get(asked.table)
    _check_sizes(service, asked)
    query = await _query(service, asked)
    depth = asked.shortlist or service.settings.shortlist
    pairs = min(depth, len(served.reader())) if asked.rerank and service.reranker is not None else 0
    key = ("search", served.name, hashlib.sha256(asked.model_dump_json().encode()).digest())
    work = Search(service, served, asked, query).run
    if not asked.stream:
        return JSONResponse(await service.answer(request, key, pairs, asked.timeout_s, work))
    context = service.job(key, pairs, asked.timeout_s, work)
    job = await context.__aenter__()  # a refusal is an answer of its own, before the stream begins

    async def events() -> AsyncIterator[bytes]:
        try:
            async for event in _told(job):
                yield event
        finally:
            await context.__aexit__(None, None, None)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _told(job: Job) -> AsyncIterator[bytes]:
    async for name, data in job.follow():
        yield _event(name, data)
    if job.problem is not None:
        yield _event("error", job.problem.body())


def _event(name: str, data: Any) -> bytes:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()


def _check_sizes(service: Service, asked: SearchRequest) -> None:
    most = service.settings.max_k
    for name in ("k", "shortlist"):
        if (value := getattr(asked, name)) is not None and value > most:
            raise Problem(422, "too_many", f"{name} may be at most {most:,}.", name)


async def _query(service: Service, asked: SearchRequest) -> Item | None:
    """Return the query, or None for a stored item, which is read later."""
    given = asked.query
    if given.item is not None:
        if given.image is not None or given.text is not None:
            raise Problem(422, "too_many_queries", "query.item excludes query.image and query.text.", "query")
        return None
    return await service.quick(service.media.item, "query", given.image, given.text, "query")
