"""What the page reads beside hits: items, values of columns, originals, the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from looktwice.errors import MediaError
from looktwice.serve.facets import facets
from looktwice.serve.hits import plain, preview_link, uri_kind
from looktwice.serve.problems import Problem, public
from looktwice.serve.routes.tables import named
from looktwice.serve.service import Service, service_of
from looktwice.serve.settings import is_local
from looktwice.serve.strict_route import StrictRoute
from looktwice.serve.tables import ServedTable
from looktwice.sources import Urls, display, read_uri
from looktwice.store import read_metadata

router = APIRouter(tags=["tables"], route_class=StrictRoute)

_FIELDS = ["id", "uri", "sha256", "width", "height", "text", "metadata"]
_IMAGES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
}
"""Formats that browsers show and that hold no script. Anything else is sent as a download."""


@router.get("/v1/tables/{table}/facets", summary="Count the values of each column.")
async def values(table: str, request: Request) -> Response:
    """Return each column's kind, most common values with counts, and range."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    return JSONResponse({"columns": plain(await service.quick(lambda: facets(served.reader())))})


@router.get("/v1/tables/{table}/items", summary="List items.")
async def items(
    table: str, request: Request, offset: int = Query(0, ge=0, le=10**12), limit: int = Query(60, ge=1, le=500)
) -> Response:
    """Return one page of a table's items, in the order in which they are stored."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    return JSONResponse(await service.quick(_page, served, offset, limit))


@router.get("/v1/tables/{table}/items/{id}", summary="Look up an item.")
async def item(table: str, id: str, request: Request) -> Response:
    """Return an item's text, metadata and size; on a server for this machine only, also the path of its file."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    row = await service.quick(_row, served, named(id))
    known = {**_shown(served.name, row), "width": row["width"] or None, "height": row["height"] or None}
    if is_local(service.settings) and uri_kind(row) == "file":
        known["path"] = display(row["uri"])
    return JSONResponse(known)


@router.get(
    "/v1/tables/{table}/items/{id}/original",
    summary="Fetch an item's image as it is stored.",
    responses={200: {"content": {"image/*": {}}}},
)
async def original(table: str, id: str, request: Request) -> Response:
    """Return the bytes of an item's image. A format that browsers do not show is sent as a download."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    return await service.quick(_original, service, served, named(id))


@router.get("/v1/tables/{table}/ledger", summary="List what failed.")
async def ledger(
    table: str, request: Request, offset: int = Query(0, ge=0, le=10**12), limit: int = Query(100, ge=1, le=1000)
) -> Response:
    """Return one page of the ledger, and how often each reason occurs in all of it."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    return JSONResponse(await service.quick(_ledger, served, offset, limit, is_local(service.settings)))


def _page(served: ServedTable, offset: int, limit: int) -> dict[str, Any]:
    reader = served.reader()
    rows = reader.page(offset, limit, _FIELDS)
    return {"items": [_shown(served.name, row) for row in rows], "total": len(reader)}


def _row(served: ServedTable, name: str) -> dict[str, Any]:
    rows = served.reader().lookup([name], _FIELDS)
    if not rows:
        raise Problem(404, "unknown_item", "The table has no item of this id.", "id")
    return rows[0]


def _shown(table: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "text": row["text"],
        "metadata": plain(read_metadata(row["metadata"])),
        "uri_kind": uri_kind(row),
        "preview": preview_link(table, row["id"], row["sha256"]) if row["width"] else None,
    }


def _original(service: Service, served: ServedTable, name: str) -> Response:
    row = _row(served, name)
    if not row["width"] or uri_kind(row) == "memory":
        raise Problem(404, "no_image", "The item has no file of its own; its preview shows it.", "id")
    urls: Urls = "public" if service.settings.allow_urls else "refused"
    try:
        data = read_uri(row["uri"], urls=urls, sha256=row["sha256"])
    except MediaError as error:
        raise Problem(409, "image_missing", f"The item's image cannot be read ({error.reason}).", "id") from None
    kind = _IMAGES.get(_format(data))
    headers = {"Cache-Control": "private, no-cache", "ETag": f'"{row["sha256"][:16]}"'}
    if kind is None:
        headers["Content-Disposition"] = "attachment"
    return Response(data, media_type=kind or "application/octet-stream", headers=headers)


def _format(data: bytes) -> str:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return str(image.format)
    except Exception:  # stored bytes may be of a kind that only a plug-in reads
        return ""


def _ledger(served: ServedTable, offset: int, limit: int, local: bool) -> dict[str, Any]:
    entries = list(served.reader().ledger)
    shown = [asdict(entry) for entry in islice(entries, offset, offset + limit)]
    rows = [
        {
            "id": row["item_id"] or None,
            "stage": row["stage"],
            "reason": row["reason"],
            "detail": row["detail"] if local else public(row["detail"]),
            "at": row["at"],
        }
        for row in shown
    ]
    return {"entries": rows, "reasons": dict(Counter(entry.reason for entry in entries)), "total": len(entries)}
