"""Describe every call of the API as a request and a reader of its answer, once for both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from looktwice.checked import demand
from looktwice.client.answers import RemoteAnswer, ranked
from looktwice.client.inputs import as_body, examples

R = TypeVar("R")


@dataclass(frozen=True)
class Call(Generic[R]):
    """A request, and the function that reads its answer."""

    method: str
    path: str
    read: Callable[[Any], R]
    body: Any = None


def search(query: Any, options: Mapping[str, Any]) -> Call[RemoteAnswer]:
    """Return a search; `options` are fields of the request."""
    return Call("POST", "/v1/search", RemoteAnswer.of, search_body(query, options))


def search_body(query: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a search."""
    body = {name: value for name, value in options.items() if value is not None}
    for name in ("like", "unlike"):
        if name in body:
            body[name] = examples(body[name])
    return body if query is None else {**body, "query": as_body(query)}


def rerank(query: Any, documents: Sequence[Any], top_k: int | None, returned: bool, options: Mapping[str, Any]) -> Any:
    """Return a rerank of documents."""
    body = {"query": as_body(query), "documents": [as_body(one) for one in documents], **_given(options)}
    if top_k is not None:
        body["top_n"] = top_k
    return Call("POST", "/v1/rerank", lambda found: ranked(found, documents if returned else None), body)


def score(queries: Any, documents: Any, options: Mapping[str, Any]) -> Call[list[float]]:
    """Return the scoring of pairs."""
    body = {"queries": _side(queries), "documents": _side(documents), **_given(options)}
    return Call("POST", "/v1/score", _scores, body)


def decide(evidence: Any, questions: Mapping[str, str], options: Mapping[str, Any]) -> Call[dict[str, float]]:
    """Return yes-or-no questions about one image, text or both."""
    given = as_body(evidence)
    parts = [{"type": "input_text", "text": given["text"]}] if "text" in given else []
    parts += [{"type": "input_image", "image_url": given["image"]}] if "image" in given else []
    asked = [{"type": "predicate", "name": name, "instructions": text} for name, text in questions.items()]
    body = {"input": [{"role": "user", "content": parts}], "questions": asked, **_given(options)}
    return Call("POST", "/v1/decisions", _probabilities, body)


def explain(query: Any, candidate: Any, options: Mapping[str, Any]) -> Call[dict[str, Any]]:
    """Return the explanation of one pair."""
    body = {"query": as_body(query), "candidate": as_body(candidate), **_given(options)}
    return Call("POST", "/v1/explain", _object, body)


def tables() -> Call[list[dict[str, Any]]]:
    """Return the list of tables."""
    return Call("GET", "/v1/tables", _tables)


def get_item(id_: str, table: str) -> Call[dict[str, Any]]:
    """Return the look-up of an item."""
    return Call("GET", item_path(table, id_), _object)


def put_item(id_: str, value: Any, metadata: Mapping[str, Any] | None, table: str) -> Call[dict[str, Any]]:
    """Return the upsert of an item."""
    return Call("PUT", item_path(table, id_), _object, {**as_body(value), "metadata": dict(metadata or {})})


def delete_item(id_: str, table: str) -> Call[dict[str, Any]]:
    """Return the removal of an item."""
    return Call("DELETE", item_path(table, id_), _object)


def item_path(table: str, id_: str) -> str:
    """Return the path of an item."""
    return f"/v1/tables/{quote(table, safe='')}/items/{quote(id_, safe='')}"


def _side(values: Any) -> Any:
    several = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    return [as_body(value) for value in values] if several else as_body(values)


def _object(found: Any) -> dict[str, Any]:
    demand(found, dict, "the answer")
    return dict(found)


def _tables(found: Any) -> list[dict[str, Any]]:
    demand(found, {"tables": [dict]}, "the answer")
    return list(found["tables"])


def _probabilities(found: Any) -> dict[str, float]:
    demand(found, {"answers": [{"name": str, "probability": (float, None)}]}, "the answer")
    return {answer["name"]: answer["probability"] for answer in found["answers"]}


def _scores(found: Any) -> list[float]:
    demand(found, {"data": [{"score": (float, None)}]}, "the answer")
    return [float("nan") if row["score"] is None else row["score"] for row in found["data"]]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
