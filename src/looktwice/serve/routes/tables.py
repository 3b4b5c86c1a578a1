"""`GET /v1/tables`, `/v1/models` and previews: what there is."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from looktwice import __version__
from looktwice.rank.calibration import Calibration
from looktwice.serve.hits import plain
from looktwice.serve.previews import preview
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import ModelsResponse, TablesResponse
from looktwice.serve.service import Service, service_of
from looktwice.serve.settings import is_local
from looktwice.serve.strict_route import StrictRoute
from looktwice.serve.tables import ServedTable, default_depth, most_maxsim

router = APIRouter(tags=["tables"], route_class=StrictRoute)
CURVE = 50  # points of a calibration's curve that the page draws between


def named(part: str, param: str = "id") -> str:
    """Return a part of a path as it was meant. Raises Problem for bytes that are not UTF-8."""
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise Problem(404, "unknown_item", "No item has this id.", param) from None


@router.get("/v1/tables", response_model=TablesResponse, summary="List the tables.")
async def tables(request: Request) -> Response:
    """Return every table with its number of items, columns and encoder."""
    service = service_of(request)
    found = await service.quick(lambda: [_about(served) for served in service.tables])
    for number, about in enumerate(found):
        about |= {"default": number == 0, "writable": service.settings.allow_write}
    return JSONResponse({"tables": found, "version": __version__, "mllm": _mllm(service)})


@router.get("/v1/tables/{table}", summary="Describe one table.")
async def table(table: str, request: Request) -> Response:
    """Return counts, columns with their values, token sets and bytes of a table."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    known = await service.quick(lambda: {**_about(served), **_details(served)})
    return JSONResponse(known | _served(service, served))


@router.get(
    "/v1/tables/{table}/items/{id}/preview", summary="Show an item.", responses={200: {"content": {"image/webp": {}}}}
)
async def show(
    table: str, id: str, request: Request, w: int = Query(320, ge=16, le=2048), v: str | None = None
) -> Response:
    """Return a small image of an item as WebP. With the right `v` it can be cached indefinitely."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    name = named(id)
    found = await service.quick(preview, service, served, name, w)
    fresh = v is not None and found.sha256.startswith(v) and len(v) >= 8
    cache = "private, max-age=31536000, immutable" if fresh else "private, no-cache"
    headers = {"ETag": found.etag, "Cache-Control": cache}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type="image/webp", headers=headers)


@router.get("/v1/models", response_model=ModelsResponse, summary="List the models.")
async def models(request: Request) -> Response:
    """Return the multimodal model and the encoders of the tables."""
    service = service_of(request)
    encoders = {served.encoder.info.name for served in service.tables}
    rows = [
        {"id": plain(name), "object": "model", "owned_by": "looktwice", "kind": "encoder"} for name in sorted(encoders)
    ]
    if service.reranker is not None:
        name = plain(str(service.settings.mllm))
        rows.insert(0, {"id": name, "object": "model", "owned_by": "looktwice", "kind": "mllm"})
    return JSONResponse({"object": "list", "data": rows})


def _about(served: ServedTable) -> dict[str, Any]:
    table = served.reader()
    columns = {name: kind.__name__ for name, kind in table.columns.items()}
    codecs = [entry["codec"] for entry in table.manifest.tokens]
    encoder = plain(table.manifest.encoder.name)
    return {"name": served.name, "items": len(table), "columns": columns, "encoder": encoder, "codecs": codecs}


def _details(served: ServedTable) -> dict[str, Any]:
    info = served.reader().info()
    kept = ("encoder", "format", "failed", "tokens", "index", "token_sets", "bytes", "bytes_per_item", "dtypes")
    return {name: plain(info[name]) for name in kept}


def _served(service: Service, served: ServedTable) -> dict[str, Any]:
    """Return how the server was set up for a table: what the page may ask for."""
    settings, base = service.settings, served.retriever()
    local = is_local(settings)
    return {
        "writable": settings.allow_write,
        "mllm": _mllm(service),
        "fusion": settings.fusion if base.config.tuned is None else str(base.config.fusion),
        "shortlist": settings.shortlist,
        "maxsim": default_depth(served.newest(), settings),
        "zoom": base.config.zoom,
        "calibration": _calibration(base.config.calibration),
        "limits": {
            "k": settings.max_k,
            "shortlist": min(settings.max_k, settings.max_queued_pairs),
            "maxsim": most_maxsim(served.newest(), settings),
            "body": settings.max_body,
        },
        "local": local,
        "path": str(served.path) if local else None,
    }


def _calibration(known: Calibration | None) -> dict[str, Any] | None:
    if known is None:
        return None
    curve = [[n / CURVE, known.probability(n / CURVE)] for n in range(CURVE + 1)]
    return {"method": known.method, "thresholds": dict(known.thresholds), "curve": curve}


def _mllm(service: Service) -> str | None:
    return None if service.reranker is None else plain(str(service.settings.mllm))
