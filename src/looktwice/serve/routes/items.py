"""Items of a table, on a server with --allow-write: insert, update and delete them; `browse` looks them up."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError

from looktwice.serve import strict_json, writing
from looktwice.serve.problems import Problem
from looktwice.serve.routes.tables import named
from looktwice.serve.schemas import Strict
from looktwice.serve.service import Service, service_of
from looktwice.serve.strict_route import StrictRoute
from looktwice.serve.tables import ServedTable

router = APIRouter(tags=["items"], route_class=StrictRoute)
MOST_LINES = 10_000
LINES = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string"}} for kind in ("application/jsonl", "text/plain")},
    }
}


class ItemBody(Strict):
    """An item: an image (base64 or a data URI), a text, or both. What is left out stays as it is."""

    image: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None


class LineBody(ItemBody):
    """One line of a batch."""

    id: str = Field(min_length=1, max_length=1000)


class WrittenResponse(BaseModel):
    """What became of an item."""

    id: str
    status: Literal["inserted", "updated", "unchanged", "deleted"]


class FailedLine(BaseModel):
    """A line of a batch that was not written."""

    line: int
    id: str | None
    reason: str
    detail: str


class BatchResponse(BaseModel):
    """Counts of a batch, and its failures line by line. Everything that is not among them is written."""

    inserted: int
    updated: int
    unchanged: int
    failed: int
    failures: list[FailedLine]


@router.put("/v1/tables/{table}/items/{id}", response_model=WrittenResponse, summary="Insert or update an item.")
async def put(table: str, id: str, body: ItemBody, request: Request) -> Response:
    """Insert an item, or update what is given of it. The answer comes after the item is on the disk."""
    service, served, name = _place(request, table, id)
    _demand_write(service)
    if not name or len(name) > 1000:
        raise Problem(422, "bad_id", "An id has 1 to 1,000 characters.", "id")
    record = await service.read(_record, service, name, body, "image")
    report = await service.write(lambda: service.writer.upsert(served, [record]))
    for failure in report.failures:
        raise writing.refusal(failure.reason, failure.detail, "id")
    status = "inserted" if report.inserted else "updated" if report.updated else "unchanged"
    return JSONResponse({"id": name, "status": status}, 201 if report.inserted else 200)


@router.delete("/v1/tables/{table}/items/{id}", response_model=WrittenResponse, summary="Delete an item.")
async def delete(table: str, id: str, request: Request) -> Response:
    """Delete an item with its tokens."""
    service, served, name = _place(request, table, id)
    _demand_write(service)
    if not await service.write(lambda: service.writer.delete(served, [name])):
        raise Problem(404, "unknown_item", "The table has no item of this id.", "id")
    return JSONResponse({"id": name, "status": "deleted"})


@router.post(
    "/v1/tables/{table}/items:batch",
    response_model=BatchResponse,
    summary="Insert or update many items.",
    openapi_extra=LINES,
)
async def batch(table: str, request: Request) -> Response:
    """Insert or update items, one JSON object of id, image, text and metadata per line. A bad line stops no other."""
    service = service_of(request)
    served = service.tables.get(named(table, "table"))
    _demand_write(service)
    data = await request.body()
    good, failures = await service.read(_lines, service, data)
    return JSONResponse(await service.write(lambda: _written(service, served, good, failures)))


def _lines(service: Service, data: bytes) -> tuple[dict[str, tuple[int, dict[str, Any]]], list[dict[str, Any]]]:
    """Return the items of a batch by id with their lines, and the lines that are none."""
    lines = [(number, line) for number, line in enumerate(data.splitlines(), start=1) if line.strip()]
    if not lines or len(lines) > MOST_LINES:
        raise Problem(422, "wrong_lines", f"A batch has 1 to {MOST_LINES:,} lines, one JSON object each.")
    good: dict[str, tuple[int, dict[str, Any]]] = {}
    failures: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            record = _line(service, line)
            if record["id"] in good:
                raise Problem(422, "duplicate_id", "The id occurs twice; the first line counts.", "id")
            good[record["id"]] = number, record
        except Problem as problem:
            failures.append({"line": number, "id": None, "reason": problem.code, "detail": problem.message})
    return good, failures


def _written(
    service: Service,
    served: ServedTable,
    good: dict[str, tuple[int, dict[str, Any]]],
    failures: list[dict[str, Any]],
) -> dict[str, Any]:
    counts = dict.fromkeys(("inserted", "updated", "unchanged"), 0)
    if good:
        report = service.writer.upsert(served, [record for _, record in good.values()])
        counts = {name: getattr(report, name) for name in counts}
        for one in report.failures:
            detail = writing.refusal(one.reason, one.detail, "id").message
            failures.append({"line": good[one.id][0], "id": one.id, "reason": one.reason, "detail": detail})
    return {**counts, "failed": len(failures), "failures": sorted(failures, key=lambda one: one["line"])}


def _line(service: Service, line: bytes) -> dict[str, Any]:
    try:
        body = LineBody.model_validate(strict_json.parse(line))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise Problem(422, str(first["type"]), f"{place}: {first['msg']}.") from None
    return _record(service, body.id, body, "image")


def _record(service: Service, name: str, body: ItemBody, param: str) -> dict[str, Any]:
    """Return an item for `Table.upsert`, its image as bytes: a text of a request is never read as a path."""
    record: dict[str, Any] = {"id": name}
    if body.metadata is not None:
        record["metadata"] = body.metadata
    if body.text is not None:
        record["text"] = service.media.text(body.text, "text")
    if body.image is not None:
        record["image"] = service.media.checked(body.image, param)
    if len(record) == 1:
        raise Problem(422, "empty", "Give an image, a text or metadata.", param)
    return record


def _place(request: Request, table: str, id: str) -> tuple[Service, ServedTable, str]:
    service = service_of(request)
    return service, service.tables.get(named(table, "table")), named(id)


def _demand_write(service: Service) -> None:
    if not service.settings.allow_write:
        raise writing.not_allowed()
