"""Build the ASGI app of a server: routes, errors, page, guard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.staticfiles import StaticFiles

from looktwice import __version__
from looktwice.score import Scorer
from looktwice.serve import problems
from looktwice.serve.guard import Guard
from looktwice.serve.problems import Problem
from looktwice.serve.routes import browse, docs, explain, health, items, pairs, search, tables
from looktwice.serve.schemas import ErrorBody
from looktwice.serve.service import Service
from looktwice.serve.settings import Settings
from looktwice.serve.tracing import trace_app

log = logging.getLogger("looktwice.serve")
STATIC = Path(__file__).parent / "static"
ROUTERS = (
    search.router,
    explain.router,
    pairs.router,
    items.router,
    tables.router,
    browse.router,
    docs.router,
    health.router,
)
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}


def create_app(settings: Settings, scorer: Scorer | None = None) -> FastAPI:
    """Return the app. Tables and weights load when it starts, in the background; `/readyz` tells when they are there.

    `scorer` takes the place of `settings.mllm`, which is then its name only. Raises UsageError for settings that would
    let strangers in.
    """
    settings.check_doors()
    settings.names()
    service = Service(settings, scorer)
    app = FastAPI(
        title="looktwice",
        version=__version__,
        description="Search images and texts: a first look by vectors, a second look by a multimodal LLM.",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service),
        responses=ERRORS,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    if STATIC.is_dir():
        app.mount("/", Page(directory=STATIC, html=True), name="page")
    if settings.tracing:
        trace_app(app)
    app.add_middleware(Guard, settings=settings, observe=service.metrics.observe, memory=service.memory)
    return app


class Page(StaticFiles):
    """The page's files. A browser keeps them and asks each time whether they have changed."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """See StaticFiles."""
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(asyncio.to_thread(_load, service))
        try:
            yield
        finally:
            loading.cancel()
            service.close()

    return lifespan


def _load(service: Service) -> None:
    try:
        service.start()
    except Exception as error:
        service.failed = error
        if not service.watched:
            log.error("loading failed: %s", error)


async def _problem(request: Request, error: Any) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


async def _invalid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    message = f"{'.'.join(place) or 'The body'}: {first['msg']}."
    status = 400 if first["type"] == "json_invalid" else 422
    problem = Problem(status, str(first["type"]), problems.public(message), ".".join(place) or None)
    return await _problem(request, problem)


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes of an address."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for one in routes if one.matches(request.scope)[0] != Match.NONE for method in one.methods or ()}


async def _http(request: Request, error: Any) -> Response:
    if isinstance(cause := error.__cause__, Problem):  # FastAPI wraps what a body's parser raises
        return await _problem(request, cause)
    status, headers, allowed = error.status_code, dict(error.headers or {}), _methods(request)
    if status in (404, 405) and allowed and request.method not in allowed:  # the page's mount knows files only
        status, headers = 405, {"Allow": ", ".join(sorted(allowed))}
    texts = {404: "There is nothing here.", 405: "This address has no such method."}
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
    return await _problem(
        request, Problem(status, code, texts.get(status, "The request cannot be read."), None, headers)
    )
