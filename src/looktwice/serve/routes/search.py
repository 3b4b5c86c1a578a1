"""`POST /v1/search`: hits as one answer, or as a stream of events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from math import ceil
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from looktwice.search.ranking_config import BOTH
from looktwice.serve.jobs import Job
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import Example, SearchRequest, SearchResponse
from looktwice.serve.searching import ParsedSearch, Search
from looktwice.serve.service import Service, service_of
from looktwice.serve.strict_route import StrictRoute
from looktwice.serve.tables import ServedGroup, ServedTable, default_depth, most_maxsim
from looktwice.types import Item

router = APIRouter(route_class=StrictRoute)

MATCHES = 50
"""Candidates of the middle look that count as one pair. With the bundled model a pair takes as long as 500 of them, 150
with crops, and half as many with zoom."""


STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.post("/v1/search", response_model=SearchResponse, responses=STREAM, summary="Search a table.", tags=["search"])
async def search(body: SearchRequest, request: Request) -> Response:
    """Find the items nearest to a query, and let the model look at the best of them again.

    With `stream` the answer is a row of server-sent events: `first` at once, `scores` block by block, then `end`, or
    `error`.
    """
    service = service_of(request)
    served = service.tables.several(body.table)
    await service.quick(_check_sizes, service, served, body)
    asked = await service.read(_read, service, body)
    pairs = await service.quick(_pairs, service, served, body, asked)
    key = ("search", served.name, hashlib.sha256(body.model_dump_json().encode()).digest())
    work = Search(service, served, body, asked).run
    if not body.stream:
        return JSONResponse(await service.answer(request, key, pairs, body.timeout_s, work))
    context = service.job(key, pairs, body.timeout_s, work)
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


def _pairs(service: Service, served: ServedTable | ServedGroup, body: SearchRequest, asked: ParsedSearch) -> int:
    """Return how many pairs a search counts as, at most: those of the second look, and what the middle look costs."""
    settings, opened = service.settings, served.newest()
    items = len(opened.retriever.table)
    depth = default_depth(opened, settings) if body.maxsim is None else body.maxsim
    depth = 0 if opened.middle is None else min(depth, items)
    pairs = min(body.shortlist or settings.shortlist, items) if body.rerank and service.reranker is not None else 0
    pairs *= 2 if depth and (body.shown or settings.shown) == BOTH else 1
    return pairs * asked.positive + ceil(depth / MATCHES) * asked.images


def _check_sizes(service: Service, served: ServedTable | ServedGroup, body: SearchRequest) -> None:
    most_k, deepest = service.settings.max_k, most_maxsim(served.newest(), service.settings)
    for name, most in (("k", most_k), ("shortlist", most_k), ("maxsim", deepest)):
        if (value := getattr(body, name)) is not None and value > most:
            raise Problem(422, "too_many", f"{name} may be at most {most:,}.", name)


def _read(service: Service, request: SearchRequest) -> ParsedSearch:
    """Read the images and texts of a request. Stored items are read later, by id."""
    like = [_example(service, one, f"like.{number}") for number, one in enumerate(request.like)]
    unlike = [_example(service, one, f"unlike.{number}") for number, one in enumerate(request.unlike)]
    given = request.query
    if given.item is not None:
        if given.image is not None:
            raise Problem(422, "too_many_queries", "query.item excludes query.image.", "query")
        text = {} if given.text is None else {"text": service.media.text(given.text, "query.text")}
        return ParsedSearch({"item": given.item, **text}, like, unlike)
    if like and given.image is None and given.text is None:
        return ParsedSearch(None, like, unlike)
    return ParsedSearch(service.media.item("query", given.image, given.text, "query"), like, unlike)


def _example(service: Service, given: str | Example, param: str) -> Item | dict[str, str]:
    """Return an example: the id of a stored item; or an image, a text or both."""
    if isinstance(given, str):
        return {"item": given}
    if (given.id is None) == (given.image is None and given.text is None):
        raise Problem(422, "wrong_example", "An example has either an id, or an image, a text or both.", param)
    return {"item": given.id} if given.id is not None else service.media.item(param, given.image, given.text, param)
