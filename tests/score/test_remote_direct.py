"""Routes that give a probability of their own: re-rankers and decisions, in the shapes that their documentation shows.

No hosted service was called. The bodies are written from documentation; vLLM and transformers are checked for real in
tests/vllm.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from stub_server import item

from looktwice import Item, Scorer, load_scorer
from looktwice.errors import ServerError, UsageError
from looktwice.score.remote.config import RemoteConfig

QUERY = item("q", 200, 0, 0)
MANY = [item(f"c{i}", 5 * i, 255 - 3 * i, 40 + i) for i in range(40)]
PROBES = 2


class Routes(ThreadingHTTPServer):
    """Answers each path by a function from a body to (status, answer)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []

    def name(self, kind: str) -> str:
        return f"{kind}+http://127.0.0.1:{self.server_port}/v1#m"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, Routes)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        route = self.server.routes.get(self.path)
        if route is not None:
            self.server.asked.append(body)
        self._send(*(route(body) if route is not None else (404, {"error": {"message": "no such route"}})))

    def do_GET(self) -> None:
        self._send(404, {})

    def _send(self, status: int, answer: object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def routes() -> Iterator[Routes]:
    server = Routes()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def likeness(query: object, document: object) -> float:
    """A relevance that follows from both: 1 for the same content."""
    if json.dumps(query, sort_keys=True) == json.dumps(document, sort_keys=True):
        return 1.0
    return (sum(json.dumps([query, document]).encode()) % 97) / 97


def scorer(routes: Routes, kind: str, prompt: str = "object") -> Scorer:
    return load_scorer(routes.name(kind), prompt=prompt, remote=RemoteConfig(timeout=10))


# --- re-rankers -------------------------------------------------------------------------------------------------------


def vllm_rerank(body: Mapping[str, Any]) -> tuple[int, Any]:
    """vLLM's shape: parts; sorted results."""
    rows = [{"index": i, "relevance_score": likeness(body["query"], d)} for i, d in enumerate(body["documents"])]
    rows.sort(key=lambda row: -row["relevance_score"])
    return 200, {"id": "r", "model": body["model"], "usage": {"total_tokens": 7}, "results": rows}


def jina_rerank(body: Mapping[str, Any]) -> tuple[int, Any]:
    """Jina's shape: flat documents; parts are a 422."""
    if any(isinstance(document, dict) and "content" in document for document in body["documents"]):
        return 422, {"detail": [{"msg": "unknown field content"}]}
    return vllm_rerank(body)


@pytest.mark.parametrize(("route", "form"), [(vllm_rerank, "parts"), (jina_rerank, "flat")])
def test_a_reranker_scores_images_in_chunks_and_by_index(routes: Routes, route: Any, form: str) -> None:
    routes.routes["/v1/rerank"] = route
    one = scorer(routes, "rerank")
    scores = one.score(QUERY, MANY)
    assert one.settings()["server"][0]["form"] == form and one.settings()["server"][0]["self_pair_first"]
    assert scores.status == ("ok",) * len(MANY) and np.isnan(scores.off_mass).all()
    seen = {}
    for body in routes.asked[-2:]:
        seen |= {json.dumps(d): likeness(body["query"], d) for d in body["documents"]}
    assert [len(body["documents"]) for body in routes.asked[-2:]] in ([32, 8], [8, 32])
    assert sorted(scores.p.tolist()) == pytest.approx(sorted(seen.values()), abs=1e-6)
    assert one.score(QUERY, MANY[:1]).p[0] == pytest.approx(scores.p[0], abs=1e-6)
    assert one.score(QUERY, [QUERY]).p[0] == 1.0
    part = routes.asked[-1]["documents"][0]
    assert list(part) == (["content"] if form == "parts" else ["image"])


def test_cohere_gets_texts(routes: Routes) -> None:
    routes.routes["/v1/rerank"] = vllm_rerank
    one = scorer(routes, "rerank", "mixed")
    scores = one.score(Item("q", text="a red bus"), [Item("a", text="a bus"), Item("b", text="a red bus")])
    assert routes.asked[-1]["documents"] == ["a bus", "a red bus"] and routes.asked[-1]["query"] == "a red bus"
    assert scores.p[1] == 1.0


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([{"index": 0, "relevance_score": 0.5}], ("ok", "failed")),
        (
            [{"index": 0, "relevance_score": None, "error": "x"}, {"index": 1, "relevance_score": 0.25}],
            ("failed", "ok"),
        ),
        ([{"index": 1, "score": 0.5}, {"index": 0, "score": 0.5}], ("ok", "ok")),
    ],
)
def test_a_document_without_a_score_has_none(routes: Routes, results: list[Any], status: tuple[str, ...]) -> None:
    routes.routes["/v1/rerank"] = vllm_rerank
    one = scorer(routes, "rerank")
    routes.routes["/v1/rerank"] = lambda body: (200, {"results": results})
    scores = one.score(QUERY, MANY[:2])
    assert scores.status == status
    assert [np.isnan(p) for p in scores.p] == [s == "failed" for s in status]


@pytest.mark.parametrize(
    "results",
    [
        [{"index": 0, "relevance_score": 4.5}, {"index": 1, "relevance_score": -2}],
        [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.1}],
        [{"index": 7, "relevance_score": 0.5}],
        [{"relevance_score": 0.5}],
    ],
)
def test_results_that_are_no_probabilities_or_name_no_document_stop_the_run(routes: Routes, results: Any) -> None:
    routes.routes["/v1/rerank"] = vllm_rerank
    one = scorer(routes, "rerank")
    routes.routes["/v1/rerank"] = lambda body: (200, {"results": results})
    with pytest.raises(ServerError, match=r"is not a probability|do not name each document once"):
        one.score(QUERY, MANY[:2])


def test_bare_lists_of_results_are_read(routes: Routes) -> None:
    routes.routes["/v1/rerank"] = lambda body: (200, vllm_rerank(body)[1]["results"])
    assert scorer(routes, "rerank").score(QUERY, [QUERY]).p[0] == 1.0


def test_a_reranker_has_one_question(routes: Routes) -> None:
    routes.routes["/v1/rerank"] = vllm_rerank
    one = scorer(routes, "rerank")
    assert one.with_prompt("landmark").settings()["prompt"] == "landmark"
    with pytest.raises(UsageError, match="can ask only one question"):
        one.with_prompt("match", "p-label")


# --- decisions --------------------------------------------------------------------------------------------------------


def openai_decisions(body: Mapping[str, Any]) -> tuple[int, Any]:
    """OpenAI's shape: user messages of input_text and input_image; answers in order, probabilities of two decimals."""
    (message,) = body["input"]
    assert message["role"] == "user" and message["type"] == "message"
    evidence = [part for part in message["content"] if part["type"] == "input_image"]
    answers = []
    for one in body["questions"]:
        assert one["type"] == "predicate" and one["instructions"][-1]["type"] == "input_text"
        shown = [part for part in one["instructions"] if part["type"] == "input_image"]
        answers.append({"type": "predicate", "name": one["name"], "probability": round(likeness(evidence, shown), 2)})
    return 200, {"model": body["model"], "answers": answers, "usage": {"input_tokens": 50, "output_tokens": 0}}


def test_decisions_ask_one_question_per_candidate_over_the_query(routes: Routes) -> None:
    routes.routes["/v1/decisions"] = openai_decisions
    one = scorer(routes, "decisions")
    scores = one.score(QUERY, MANY)
    assert scores.status == ("ok",) * len(MANY) and one.score(QUERY, [QUERY]).p[0] == 1.0
    assert max(len(body["questions"]) for body in routes.asked) == 16
    assert one.settings()["question"].startswith("Does the candidate show the very object")
    assert one.stats()["requests"]["prompt_tokens"] == 50 * (len(routes.asked) - PROBES)
    single = one.score(QUERY, MANY[3:4])
    assert single.p[0] == pytest.approx(scores.p[3], abs=1e-6)


def test_a_refusal_is_no_score(routes: Routes, caplog: pytest.LogCaptureFixture) -> None:
    routes.routes["/v1/decisions"] = openai_decisions
    one = scorer(routes, "decisions")

    def refusing(body: Mapping[str, Any]) -> tuple[int, Any]:
        status, answer = openai_decisions(body)
        answer["answers"][0] = {"type": "refusal", "name": "0"}
        return status, answer

    routes.routes["/v1/decisions"] = refusing
    scores = one.score(QUERY, MANY[:3])
    assert scores.status == ("failed", "ok", "ok") and np.isnan(scores.p[0])
    with caplog.at_level(logging.WARNING):
        assert one.score(QUERY, MANY[:1]).status == ("failed",)
    assert "declined to answer" in caplog.text


def test_what_a_server_says_beside_yes_and_no_is_kept(routes: Routes) -> None:
    def ours(body: Mapping[str, Any]) -> tuple[int, Any]:
        status, answer = openai_decisions(body)
        for row in answer["answers"]:
            row |= {"label_mass": 0.75, "off_mass": 0.25}
        return status, answer

    routes.routes["/v1/decisions"] = ours
    assert scorer(routes, "decisions").score(QUERY, MANY[:2]).off_mass == pytest.approx([0.25, 0.25])


def vllm_systemone(body: Mapping[str, Any]) -> tuple[int, Any]:
    """vLLM's shape: images in one list; diagnostics."""
    p = likeness(*body["images"]) if len(body["images"]) == 2 else 0.5
    answers = {name: {"type": "noul", "noul": p, "confidence": max(p, 1 - p)} for name in body["questions"]}
    notes = {name: {"label_mass": 0.9, "argmax_is_label": True} for name in body["questions"]}
    return 200, {"model": body["model"], "answers": answers, "diagnostics": notes, "usage": {"input_tokens": 9}}


def transformers_systemone(body: Mapping[str, Any]) -> tuple[int, Any]:
    """transformers' shape: assets by the names that stand in the state; a field that it does not know is a 422."""
    if set(body) - {"model", "state", "questions", "assets"}:
        return 422, {"detail": [{"msg": "Extra inputs are not permitted"}]}
    assert all(name in body["state"] for name in body["assets"])
    p = likeness(*(one["data_base64"] for one in body["assets"].values()))
    return 200, {"model": body["model"], "answers": {n: {"type": "noul", "noul": p} for n in body["questions"]}}


@pytest.mark.parametrize(
    ("route", "form", "off"), [(vllm_systemone, "images", 0.1), (transformers_systemone, "assets", np.nan)]
)
def test_systemone_asks_pair_by_pair(routes: Routes, route: Any, form: str, off: float) -> None:
    routes.routes["/v1/systemone"] = route
    one = scorer(routes, "systemone")
    scores = one.score(QUERY, [*MANY[:5], QUERY])
    assert one.settings()["server"][0]["form"] == form
    assert scores.status == ("ok",) * 6 and scores.p[-1] == 1.0
    assert scores.off_mass == pytest.approx([off] * 6, nan_ok=True)


def test_a_model_that_vllm_does_not_decide_with_is_a_sentence(routes: Routes) -> None:
    routes.routes["/v1/systemone"] = lambda body: (501, {"error": {"message": "The model does not support it"}})
    with pytest.raises(ServerError, match="has no /v1/systemone for this model"):
        scorer(routes, "systemone")


def test_another_model_in_mid_run_stops_the_run(routes: Routes) -> None:
    routes.routes["/v1/rerank"] = vllm_rerank
    one = load_scorer(routes.name("rerank"), prompt="object", remote=RemoteConfig(check_seconds=0.0))
    one.score(QUERY, MANY[:2])
    routes.routes["/v1/rerank"] = lambda body: (200, {"results": [{"index": 0, "relevance_score": 0.987}]})
    with pytest.raises(ServerError, match="runs another model"):
        one.score(QUERY, MANY[:2])


def test_stored_tokens_go_to_chat_servers_only(routes: Routes) -> None:
    with pytest.raises(UsageError, match="--tokens-from needs a chat server"):
        load_scorer(routes.name("rerank"), remote=RemoteConfig(tokens_from="tiny-vl"))


def test_the_cost_of_a_run_follows_from_the_probe(routes: Routes) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        rows = [{"index": i, "relevance_score": 0.5} for i in range(len(body["documents"]))]
        return 200, {"results": rows, "usage": {"total_tokens": 100 * len(rows)}}

    routes.routes["/v1/rerank"] = answer
    money = {"price": 10.0, "pairs": 10}
    one = load_scorer(routes.name("rerank"), remote=RemoteConfig(max_cost=0.011, **money))
    assert one.score(QUERY, MANY[:10]).status == ("ok",) * 10
    assert one.stats()["requests"]["cost"] == pytest.approx(0.01)
    with pytest.raises(UsageError, match=r"next 10 pairs would cost about 0\.01 on top of 0 spent"):
        load_scorer(routes.name("rerank"), remote=RemoteConfig(max_cost=0.009, **money))
