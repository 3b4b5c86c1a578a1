"""`/v1/rerank`, `/v1/score` and `/v1/decisions`: scores of the pairs given in the request."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from looktwice.checked import finite
from looktwice.serve import pair_schemas as shapes
from looktwice.serve.hits import plain
from looktwice.serve.jobs import Emit
from looktwice.serve.pairs import (
    as_given,
    read_document,
    read_parts,
    score_documents,
    score_questions,
    with_instruction,
)
from looktwice.serve.problems import Problem
from looktwice.serve.request_images import RequestImage, RequestItem
from looktwice.serve.service import Service, service_of
from looktwice.serve.strict_route import StrictRoute
from looktwice.types import SCORED, PairScores

router = APIRouter(tags=["pairs"], route_class=StrictRoute)


@router.post("/v1/rerank", response_model=shapes.RerankResponse, summary="Rank documents for a query.")
@router.post("/v2/rerank", response_model=shapes.RerankResponse, include_in_schema=False)
@router.post("/rerank", response_model=shapes.RerankResponse, include_in_schema=False)
async def rerank(asked: shapes.RerankRequest, request: Request) -> Response:
    """Return documents, best first, in the shape of Jina, Cohere and vLLM; needs no table."""
    service, name = _begin(request, asked.model)
    _check_count(service, len(asked.documents), "documents")
    query, documents = await service.read(_read_rerank, service, asked)
    reranker = service.demand_reranker()

    def work(emit: Emit) -> list[dict[str, Any]]:
        scores = score_documents(reranker, query, documents, asked.prompt)
        return _ranked(scores, asked.documents if asked.return_documents else None, asked.top_n)

    results = await service.answer(request, _key("rerank", asked), len(documents), asked.timeout_s, work)
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    body = {"id": _id("rerank"), "object": "list", "model": name, "results": results}
    return JSONResponse({**body, "usage": {"pairs": len(documents)}, "meta": meta})


@router.post("/v1/score", response_model=shapes.ScoreResponse, summary="Score pairs.")
@router.post("/score", response_model=shapes.ScoreResponse, include_in_schema=False)
async def score(asked: shapes.ScoreRequest, request: Request) -> Response:
    """Return the scores of pairs: one with one, one with many, or side by side (vLLM's shape)."""
    service, name = _begin(request, asked.model)
    queries, documents = _sides(service, asked)
    pairs = max(len(queries), len(documents))
    reranker = service.demand_reranker()
    left = await service.read(_read_all, service, queries, "queries")
    right = await service.read(_read_all, service, documents, "documents")

    def work(emit: Emit) -> list[dict[str, Any]]:
        if len(left) == 1:
            return _rows(score_documents(reranker, left[0], right, asked.prompt))
        both = zip(left, right, strict=True)
        return [row for one, other in both for row in _rows(score_documents(reranker, one, [other], asked.prompt))]

    rows = await service.answer(request, _key("score", asked), pairs, asked.timeout_s, work)
    data = [{"index": number, "object": "score", **row} for number, row in enumerate(rows)]
    body = {"id": _id("score"), "object": "list", "created": int(time.time()), "model": name}
    return JSONResponse({**body, "data": data, "usage": {"pairs": pairs}})


@router.post("/v1/decisions", response_model=shapes.DecisionResponse, summary="Answer yes-or-no questions.")
async def decisions(asked: shapes.DecisionRequest, request: Request) -> Response:
    """Return P(yes) for each question about shared evidence. A question and its evidence may show two images in all."""
    service, name = _begin(request, asked.model)
    _check_count(service, len(asked.questions), "questions")
    reranker = service.demand_reranker()
    evidence, questions = await service.read(_read_decisions, service, asked)

    def work(emit: Emit) -> list[dict[str, Any]]:
        return [*_answers(asked.questions, score_questions(reranker, evidence, questions))]

    answers = await service.answer(request, _key("decisions", asked), len(questions), asked.timeout_s, work)
    body = {"id": _id("decision"), "object": "decision", "model": name, "answers": answers}
    return JSONResponse({**body, "usage": {"pairs": len(questions)}})


def _begin(request: Request, model: str | None) -> tuple[Service, str]:
    """Return the service and the name of its model. Raises Problem for another model."""
    service = service_of(request)
    service.demand_reranker()
    name = str(plain(str(service.settings.mllm)))
    if model is not None and model != name:
        raise Problem(
            404, "unknown_model", f"This server has the model {name} only; name it, or leave model out.", "model"
        )
    return service, name


def _check_count(service: Service, count: int, param: str) -> None:
    most = service.settings.max_documents
    if count > most:
        raise Problem(422, "too_many_documents", f"A request may have at most {most:,} {param}.", param)


def _read_rerank(service: Service, asked: shapes.RerankRequest) -> tuple[RequestItem, list[RequestItem]]:
    query = read_document(service.media, asked.query, "query")
    if asked.instruction is not None and asked.instruct is not None:
        raise Problem(422, "two_instructions", "instruction and instruct are the same; give one.", "instruct")
    instruction = asked.instruction if asked.instruction is not None else asked.instruct
    documents = _read_all(service, asked.documents, "documents")
    for number, one in enumerate(documents):
        _check_length(one.text, asked.max_tokens_per_doc, f"documents.{number}")
    checked = None if instruction is None else service.media.text(instruction, "instruction")
    return with_instruction(query, checked), documents


def _read_all(service: Service, given: Sequence[shapes.DocumentLike], param: str) -> list[RequestItem]:
    return [read_document(service.media, one, f"{param}.{number}") for number, one in enumerate(given)]


def _check_length(text: str | None, most: int | None, param: str) -> None:
    """Raise Problem for a text that could have more than `most` tokens: it would have to be cut. A token has a byte."""
    if most is not None and text is not None and len(text.encode()) > most:
        raise Problem(
            422, "document_too_long", "This server cuts no documents; send a larger max_tokens_per_doc.", param
        )


def _sides(service: Service, asked: shapes.ScoreRequest) -> tuple[list[Any], list[Any]]:
    try:
        queries, documents = asked.sides()
    except ValueError as error:
        raise Problem(422, "wrong_sides", f"The two sides are unclear; {error}.") from None
    if not queries or not documents or (len(queries) != 1 and len(queries) != len(documents)):
        raise Problem(422, "wrong_lengths", "Give 1 and 1, 1 and N, or N and N items.")
    _check_count(service, len(documents), "documents")
    return queries, documents


def _read_decisions(service: Service, asked: shapes.DecisionRequest) -> tuple[RequestItem, list[RequestItem]]:
    """Return evidence and questions. A second shared image joins each question, which then has none of its own."""
    shared = _evidence(service, asked)
    questions = []
    for number, question in enumerate(asked.questions):
        param = f"questions.{number}.instructions"
        own = read_parts(service.media, question.instructions, param)
        if not own[0].text:
            raise Problem(422, "no_question", "A question needs a text.", param)
        images = [one for one in (*shared[1:], *own) if isinstance(one, RequestImage)]
        if len(images) > 1:
            raise Problem(422, "too_many_images", "A question and its evidence may show two images in all.", param)
        seen = images[0] if images else own[0]
        questions.append(replace(seen, id=f"question {number}", text=own[0].text))
    return shared[0], questions


def _evidence(service: Service, asked: shapes.DecisionRequest) -> list[RequestItem]:
    if isinstance(asked.input, str):
        return [service.media.later("evidence", None, asked.input, "input")]
    parts: list[shapes.ContentPart] = []
    for message in asked.input:
        own = message.content
        parts += [shapes.ContentPart(type="text", text=own)] if isinstance(own, str) else own
    return read_parts(service.media, parts, "input")


def _ranked(
    scores: PairScores | None, documents: Sequence[shapes.DocumentLike] | None, top_n: int | None
) -> list[dict[str, Any]]:
    rows = _rows(scores)
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["score"] is None, -(rows[i]["score"] or 0.0), i))
    found = []
    for i in order[: top_n or None]:
        row: dict[str, Any] = {"index": i, "relevance_score": rows[i]["score"]}
        if "error" in rows[i]:
            row["error"] = rows[i]["error"]
        if documents is not None:
            row["document"] = as_given(documents[i])
        found.append(row)
    return found


def _rows(scores: PairScores | None) -> list[dict[str, Any]]:
    if scores is None:
        return []
    return [
        {"score": finite(p)} if status in SCORED else {"score": None, "error": status}
        for p, status in zip(scores.p, scores.status, strict=True)
    ]


def _answers(questions: Sequence[shapes.PredicateQuestion], scores: PairScores) -> list[dict[str, Any]]:
    answers = []
    for i, question in enumerate(questions):
        off = finite(scores.off_mass[i])
        answer = {"type": "predicate", "name": question.name, "probability": finite(scores.p[i])}
        answer |= {"label_mass": None if off is None else 1 - off, "off_mass": off}
        answers.append(
            answer if scores.status[i] in SCORED else {**answer, "probability": None, "error": scores.status[i]}
        )
    return answers


def _key(route: str, asked: BaseModel) -> tuple[str, bytes]:
    return route, hashlib.sha256(asked.model_dump_json().encode()).digest()


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"
