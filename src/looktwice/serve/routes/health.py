"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from looktwice.serve import problems
from looktwice.serve.service import service_of
from looktwice.serve.strict_route import StrictRoute

router = APIRouter(tags=["operations"], route_class=StrictRoute)


@router.get("/healthz", summary="Say that the process is alive.")
async def healthz() -> Response:
    """Answer 200 as long as the process answers at all."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="Say whether weights and tables are loaded.")
async def readyz(request: Request) -> Response:
    """Answer 200 when requests will be answered, 503 while loading and while stopping."""
    service = service_of(request)
    if not service.gate.open:
        raise problems.stopping()
    if not service.ready:
        raise problems.loading()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse, summary="Measure the server, for Prometheus.")
async def metrics(request: Request) -> Response:
    """Return all measurements in Prometheus' text format."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4")
