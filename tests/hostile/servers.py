"""Servers that send damaged answers, to a scorer that asks them and to the client. Runs inside a job."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from mutate import damaged
from parsers import failure

sys.path.insert(0, str(Path(__file__).parent.parent / "score"))

PAIRS = 3
HIT = {
    "id": "a",
    "rank": 1,
    "score": 0.5,
    "coarse": 0.5,
    "coarse_rank": 1,
    "maxsim": None,
    "p": 0.5,
    "calibrated": None,
}
HIT |= {"off_mass": None, "entropy": None, "status": "ok", "uri_kind": "file", "metadata": {"a": 1}, "text": "b"}
HIT |= {"preview": "/v1/x", "folded": None, "explain": {"status": "ok", "coarse_rank": 1}}
CANDIDATES = {"requested": 2, "scored": 1, "reasons": {"missing": 1}, "parse_errors": 0, "asked_again": 0}
LOOK = {"mllm": "m", "revision": "r", "prompt": "object", "prompt_hash": "h", "dtype": "float32", "device": "cpu"}
MANIFEST = {
    "k": 2,
    "queries": 1,
    "candidates": CANDIDATES,
    "seconds": {"read": 0.1, "score": 0.2},
    "second_look": [LOOK],
}
MANIFEST |= {"pairs_per_second": 3.5, "directions": ["image-to-image"], "fusion": 0.5}
SEARCH = {"hits": [HIT, {**HIT, "id": "b", "rank": 2}], "manifest": MANIFEST, "stages": {}}


def reranked(body: Mapping[str, Any]) -> Any:
    count = len(body["documents"])
    return {
        "model": "m",
        "results": [{"index": i, "relevance_score": 0.25} for i in range(count)],
        "usage": {"tokens": 3},
    }


def decided(body: Mapping[str, Any]) -> Any:
    names = [question["name"] for question in body["questions"]]
    return {"answers": [{"type": "predicate", "name": n, "probability": 0.5, "off_mass": 0.1} for n in names]}


def system_one(body: Mapping[str, Any]) -> Any:
    return {"answers": {"pair": {"noul": 0.5}}, "diagnostics": {"pair": {"label_mass": 0.9}}}


DIRECT = {"/v1/rerank": reranked, "/v1/decisions": decided, "/v1/systemone": system_one}
MODELS = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}
SCORERS = {
    "chat": "http://x/v1#stub",
    **{kind: f"{kind}+http://x/v1#m" for kind in ("rerank", "decisions", "systemone")},
}


def answerer() -> Callable[[str, bytes | None], tuple[int, bytes]]:
    """Return a function from path and body to the right answer of any kind of server."""
    from stub_server import Stub

    stub = Stub()
    stub.server_close()

    def answer(path: str, content: bytes | None) -> tuple[int, bytes]:
        body = json.loads(content or b"{}")
        if path in DIRECT:
            return 200, json.dumps(DIRECT[path](body)).encode()
        if path == "/v1/models":
            return 200, json.dumps({"data": [*MODELS["data"], {"id": "stub"}]}).encode()
        status, _, data = stub.answer(path, body, {})
        return status, data

    return answer


def attack_scorers(seed: str, count: str) -> list[str]:
    """Connect to damaged servers and score pairs; a score must be a probability, a failure an error of ours."""
    from stub_server import item

    from looktwice import load_scorer
    from looktwice.score.remote import endpoint
    from looktwice.score.remote.config import RemoteConfig

    right, dice, spoil = answerer(), random.Random(), 0.0

    async def exchange(
        self: Any, method: str, url: str, content: bytes | None, *more: object
    ) -> tuple[int, Mapping[str, str], bytes]:
        status, data = right(httpx.URL(url).path, content)
        headers = {"retry-after": dice.choice(("1e400", "nan", "-5", "9" * 5000, "Mon, 01 Jan 0001 00:00:00 -0000"))}
        if dice.random() >= spoil:
            return status, {}, data
        return dice.choice((200, 200, 200, 200, status, 400, 503, 302)), headers, damaged(data, dice)

    endpoint.Endpoint._exchange = exchange  # type: ignore[method-assign]
    endpoint._pause = lambda trouble, attempt: 0.0  # type: ignore[assignment]
    endpoint.LONGEST_PAUSE = 0.0
    query, candidates = item("q", 200, 0, 0), [item(f"c{i}", 5 * i, 255, 40) for i in range(PAIRS)]

    def score(kind: str) -> None:
        scorer = load_scorer(SCORERS[kind], remote=RemoteConfig(timeout=0.2))
        scores = scorer.score(query, candidates)
        for p, status in zip(scores.p, scores.status, strict=True):
            assert 0 <= p <= 1 if status in ("ok", "bounded") else math.isnan(p)
        json.dumps(dict(scorer.settings()), default=str)

    for kind in SCORERS:
        score(kind)
    wrong = []
    for number in range(int(count)):
        kind, spoil = list(SCORERS)[number % len(SCORERS)], (0.1, 0.5)[number % 2]
        dice.seed(f"server {seed} {number}")
        wrong += failure(lambda kind=kind: score(kind), f"{kind} {seed} {number}")
    return wrong


CALLS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "/v1/search": (SEARCH, lambda client: client.search("horse", k=2)),
    "/v1/rerank": (reranked({"documents": "ab"}), lambda client: client.rerank("a", ["b", "c"], return_documents=True)),
    "/v1/score": ({"data": [{"index": 0, "score": 0.5}]}, lambda client: client.score("a", "b")),
    "/v1/decisions": (decided({"questions": [{"name": "n"}]}), lambda client: client.decide("a", {"n": "?"})),
    "/v1/explain": ({"map": {"rows": 1}, "p": 0.5}, lambda client: client.explain("a", "b")),
    "/v1/tables": ({"tables": [{"name": "t", "items": 2}]}, lambda client: client.tables()),
    "/v1/tables/t/items/a": ({"id": "a", "metadata": {}}, lambda client: client.get("a", "t")),
}


def attack_client(seed: str, count: str) -> list[str]:
    """Ask a damaged `looktwice serve`: each call returns what it promises, or raises an error of ours."""
    from looktwice import Client
    from looktwice.cli.remote import show

    dice, spoil = random.Random(), False

    def handle(request: httpx.Request) -> httpx.Response:
        found = CALLS[request.url.path][0]
        if b'"stream"' in request.content:
            events = [("first", {"hits": SEARCH["hits"]}), ("end", SEARCH)]
            data = "".join(f"event: {name}\ndata: {json.dumps(body)}\n\n" for name, body in events).encode()
        else:
            data = json.dumps(found).encode()
        if not spoil:
            return httpx.Response(200, content=data)
        status = dice.choice((200, 200, 200, 302, 400, 429, 500))
        return httpx.Response(
            status, content=damaged(data, dice), headers={"retry-after": dice.choice(("9" * 5000, "x"))}
        )

    client = Client("http://x")
    client._http = httpx.Client(base_url="http://x", transport=httpx.MockTransport(handle))

    def streamed() -> None:
        assert all(isinstance(data, dict) for _, data in client.search_stream("horse", k=2))

    def searched() -> None:
        show("horse", client.search("horse", k=2), False, True)

    asked = [*((lambda call=call: call(client)) for _, call in CALLS.values()), streamed, searched]
    for ask in asked:
        ask()
    spoil, wrong = True, []
    for number in range(int(count)):
        dice.seed(f"client {seed} {number}")
        wrong += failure(asked[number % len(asked)], f"client {seed} {number}")
    return wrong
