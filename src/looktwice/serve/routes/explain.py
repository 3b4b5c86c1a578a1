"""`POST /v1/explain`: one pair, taken apart."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from looktwice.serve.explaining import ExplainedPair, Explanation
from looktwice.serve.problems import Problem
from looktwice.serve.schemas import SearchQuery, Strict
from looktwice.serve.service import Service, service_of
from looktwice.serve.strict_route import StrictRoute
from looktwice.types import Item, has_words

router = APIRouter(tags=["search"], route_class=StrictRoute)


class ExplainRequest(Strict):
    """A query and a candidate; each is an image, a text, both, or an item of the table."""

    table: str | None = None
    query: SearchQuery
    candidate: SearchQuery
    prompt: str | None = Field(default=None, max_length=100)
    cells: int = Field(default=64, ge=0, le=400, description="About how many cells the map has; 0: no map.")
    timeout_s: float | None = Field(default=None, ge=0.5, le=3600)


class ExplainedLabel(BaseModel):
    """One answer that the prompt allows: its share among the labels, and its probability among all tokens."""

    name: str
    value: float | None = None
    share: float
    probability: float | None = None


class MapBody(BaseModel):
    """How much p falls when a cell of the candidate is hidden; `box`: left, top, right, bottom in shares of 1."""

    rows: int
    cols: int
    values: list[list[float]]
    box: tuple[float, float, float, float] | None


class ExplainResponse(BaseModel):
    """What the model answered, how the score is made up, and what of the candidate mattered."""

    p: float
    contributions: dict[str, Any] | None
    entropy: float | None
    off_mass: float | None
    labels: list[ExplainedLabel]
    map: MapBody | None
    prompt: str | None
    model: str | None


@router.post("/v1/explain", response_model=ExplainResponse, summary="Explain one pair.")
async def explain(body: ExplainRequest, request: Request) -> Response:
    """Return label probabilities, entropy, off-mass, each look's part of the score, and a map of the candidate."""
    service = service_of(request)
    reranker = service.demand_reranker()
    pair = await service.read(_read, service, body)
    work = Explanation(reranker, pair, body.prompt, body.cells).run
    key = ("explain", hashlib.sha256(body.model_dump_json().encode()).digest())
    return JSONResponse(await service.answer(request, key, 1 + body.cells, body.timeout_s, work))


def _read(service: Service, body: ExplainRequest) -> ExplainedPair:
    query, candidate = _side(service, body.query, "query"), _side(service, body.candidate, "candidate")
    needed = body.table is not None or isinstance(query, str) or isinstance(candidate, str)
    retriever = service.tables.get(body.table).retriever() if needed else None
    text = body.query.text if has_words(body.query.text) else None
    return ExplainedPair(query, candidate, retriever, None if text is None else service.media.text(text, "query.text"))


def _side(service: Service, given: SearchQuery, param: str) -> Item | str:
    if given.item is None:
        return service.media.item(param, given.image, given.text, param)
    if given.image is not None or (given.text is not None and param != "query"):
        raise Problem(422, "too_many_queries", "item excludes image, and a candidate's item excludes text.", param)
    return given.item
