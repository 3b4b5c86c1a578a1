"""What a foreign or hostile server sends to the client: a plain error, never other types, and never all memory."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from looktwice import AsyncClient, Client
from looktwice.client import answers, events, http
from looktwice.errors import ServerError, UsageError

HIT = {"id": "a", "rank": 1, "score": 0.5, "coarse": 0.5, "p": None, "maxsim": None, "status": "ok"}
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> Client:
    made = Client("http://x")
    made._http = httpx.Client(base_url="http://x", transport=httpx.MockTransport(handler))
    return made


def answering(body: object, **how: Any) -> Client:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client(lambda request: httpx.Response(how.get("status", 200), content=content, headers=how.get("headers")))


@pytest.mark.parametrize(
    "body",
    [
        *([], "x", {"hits": {}}, {"hits": ["x"], "manifest": {}}, {"hits": [HIT], "manifest": []}),
        *({"hits": [{**HIT, name: value}], "manifest": {}} for name, value in
          [("id", 1), ("rank", "1"), ("score", "0.5"), ("p", "x"), ("score", None), ("explain", 3), ("rank", True)]),
        *(b"[" * 100_000, b'{"hits": NaN}', b"\xff", b'{"hits": ' + b"9" * 5000 + b"}", b"<html>"),
    ],
)  # fmt: skip
def test_another_form_is_said(body: object) -> None:
    with pytest.raises(ServerError, match="not one of looktwice serve"):
        answering(body).search("horse")


@pytest.mark.parametrize(
    "ask, body",
    [
        (lambda c: c.rerank("a", ["b"]), {"results": [{}]}),
        (lambda c: c.score("a", "b"), {"data": [{"score": "x"}]}),
        (lambda c: c.decide("a", {"n": "?"}), {"answers": [3]}),
        (lambda c: c.tables(), {"tables": [3]}),
        (lambda c: c.explain("a", "b"), [["p", 0.5]]),
        (lambda c: c.get("a", "t"), [["id", "a"]]),
    ],
)
def test_every_call_checks_its_answer(ask: Callable[[Client], object], body: object) -> None:
    with pytest.raises(ServerError, match="not one of looktwice serve"):
        ask(answering(body))


def test_a_document_that_was_not_sent_is_no_answer() -> None:
    with pytest.raises(ServerError, match="not one of looktwice serve"):
        answering({"results": [{"index": 7, "relevance_score": 0.5}]}).rerank("a", ["b"], return_documents=True)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_huge_answer_is_cut_off(compressed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 10_000)
    body = b" " * 20_000
    sent = gzip.compress(body) if compressed else body
    asked = answering(sent, headers={"content-encoding": "gzip"} if compressed else {})
    with pytest.raises(ServerError, match="sends more than"):
        asked.search("horse")


def test_a_stream_of_one_endless_line_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 10_000)

    def endless() -> Iterator[bytes]:
        while True:
            yield b"data: " + b"x" * 1000

    with pytest.raises(ServerError, match="sends more than"):
        list(client(lambda request: httpx.Response(200, content=endless())).search_stream("horse"))


@pytest.mark.parametrize("line", [b"data: {", b"data: 3", b"event: error\ndata: {}", b"data: " + b"[" * 10**5])
def test_a_foreign_event_is_said(line: bytes) -> None:
    with pytest.raises(ServerError, match="not one of looktwice serve"):
        list(answering(line + b"\n\n").search_stream("horse"))


def test_events_come_whole_however_they_are_cut() -> None:
    sent = 'event: first\r\ndata: {"a": "ü"}\r\n\r\nevent: end\ndata: {}\n\n'.encode()
    for size in (1, 2, 3, 7, 100):
        reader = events.EventReader()
        pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
        assert [event for piece in pieces for event in reader.feed(piece)] == [("first", {"a": "ü"}), ("end", {})]


def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    def move(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    with pytest.raises(ServerError):
        client(move).search("horse")
    assert asked == ["http://x/v1/search"]


@pytest.mark.parametrize("value", ["9" * 5000, "-1", "soon", "²"])
def test_an_odd_retry_after_is_left_out(value: str) -> None:
    with pytest.raises(ServerError) as caught:
        answers.raise_for(503, b'{"error": {"message": "full", "code": "full"}}', value)
    assert caught.value.retry_after is None and str(caught.value) == "full"


@pytest.mark.parametrize("body", [b"[" * 10**5, b'{"error": 3}', b'{"error": {"message": {}, "code": []}}'])
def test_an_error_in_another_form(body: bytes) -> None:
    with pytest.raises(ServerError, match="not in looktwice's form"):
        answers.raise_for(500, body)


def test_the_async_client_checks_too() -> None:
    async def ask() -> None:
        made = AsyncClient("http://x")
        made._http = httpx.AsyncClient(
            base_url="http://x", transport=httpx.MockTransport(lambda request: httpx.Response(200, content=b"[]"))
        )
        await made.search("horse")

    with pytest.raises(ServerError, match="not one of looktwice serve"):
        asyncio.run(ask())


@pytest.mark.parametrize("message", ["k: must be at least 1.", "must be at least 1."])
def test_a_refused_field_is_named_once(message: str) -> None:
    body = {"error": {"message": message, "code": "invalid_request", "param": "k"}}
    with pytest.raises(UsageError, match=r"\Ak: must be at least 1\.\Z"):
        answering(body, status=422).search("horse")
