"""Searching over HTTP gives the library's answers, in one piece or as a stream."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import GALLERY, Running

from looktwice import Retriever

Named = Callable[[str], str]


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    lines = [line for line in response.iter_lines() if line]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


@pytest.fixture(scope="module")
def library(drawings: Path) -> Retriever:
    return Retriever(drawings, scorer="tiny-vl")


def test_hits_are_the_librarys(server: Running, library: Retriever, image_of: Named) -> None:
    answer = server.post("/v1/search", {"query": {"image": image_of("scene-003.jpg")}, "k": 5})
    expected = library.search(GALLERY / "images" / "scene-003.jpg", k=5)
    assert answer.status_code == 200
    found = answer.json()
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected.hits]
    for hit, own in zip(found["hits"], expected.hits, strict=True):
        assert (hit["rank"], hit["status"]) == (own.rank, "ok")
        assert hit["p"] == pytest.approx(own.p, abs=2e-3)
        assert hit["coarse"] == pytest.approx(own.coarse, abs=1e-6)
        assert hit["coarse_rank"] == (own.explain or {})["coarse_rank"]
    assert found["manifest"]["second_look"][0]["mllm"] == "tiny-vl"
    assert set(found["stages"]) >= {"encode", "search", "score"}


def test_a_request_with_a_prompt_uses_the_weights_and_the_queue_of_the_server(
    server: Running, image_of: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the weights are loaded again")

    body: dict[str, Any] = {"query": {"image": image_of("scene-003.jpg")}, "k": 2, "shortlist": 3}
    server.post("/v1/search", body)
    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", load)
    found = server.post("/v1/search", {**body, "prompt": "object_yesno"})
    assert found.status_code == 200
    assert "object_yesno" in [look["prompt"] for look in found.json()["manifest"]["second_look"]]


def test_an_answer_names_the_prompts_of_its_own_request(server: Running, image_of: Named) -> None:
    image = {"image": image_of("scene-003.jpg")}
    for query, prompt in ((image, "object"), ({**image, "text": "fish"}, "composed"), (image, "object")):
        found = server.post("/v1/search", {"query": query, "k": 2, "shortlist": 3}).json()
        assert [look["prompt"] for look in found["manifest"]["second_look"]] == [prompt]


def test_a_text_a_stored_item_and_a_first_look_alone(server: Running) -> None:
    text = server.post("/v1/search", {"query": {"text": "horse"}, "k": 3, "rerank": False}).json()["hits"]
    assert [hit["status"] for hit in text] == ["unscored"] * 3 and text[0]["p"] is None
    item = server.post("/v1/search", {"query": {"item": "scene-007.jpg"}, "k": 40, "rerank": False}).json()["hits"]
    assert len(item) == 39 and "scene-007.jpg" not in {hit["id"] for hit in item}  # more like this: not itself


def test_a_stored_item_with_a_text_beside_it(server: Running, library: Retriever, image_of: Named) -> None:
    both = {"item": "scene-007.jpg", "text": "horse"}
    found = server.post("/v1/search", {"query": both, "k": 5, "shortlist": 10}).json()["hits"]
    sent = {"image": image_of("scene-007.jpg"), "text": "horse"}
    same = server.post("/v1/search", {"query": sent, "k": 6, "shortlist": 11}).json()["hits"]
    kept = [hit for hit in same if hit["id"] != "scene-007.jpg"][:5]
    assert {hit["id"]: hit["coarse"] for hit in found} == pytest.approx({h["id"]: h["coarse"] for h in kept}, abs=1e-6)
    assert [hit["p"] for hit in found] == pytest.approx([hit["p"] for hit in kept], abs=2e-3)
    own = library.search(both, k=5, rerank=False)
    alone = server.post("/v1/search", {"query": both, "k": 5, "rerank": False}).json()["hits"]
    assert [hit["id"] for hit in alone] == [hit.id for hit in own.hits]
    plain = server.post("/v1/search", {"query": {"item": "scene-007.jpg"}, "k": 5, "rerank": False}).json()["hits"]
    assert [hit["coarse"] for hit in plain] != [hit["coarse"] for hit in alone]
    pair = {"candidate": {"item": found[0]["id"]}, "cells": 0}
    one, other = (server.post("/v1/explain", {**pair, "query": query}).json()["p"] for query in (both, sent))
    assert one == pytest.approx(other, abs=2e-3) and one == pytest.approx(found[0]["p"], abs=2e-3)


def test_examples_to_be_like_and_unlike(server: Running, library: Retriever, image_of: Named) -> None:
    names = ["scene-003.jpg", "scene-007.jpg"]
    body = {"like": [names[0], {"image": image_of("scene-011.jpg")}], "unlike": [{"id": names[1]}], "k": 3}
    found = server.post("/v1/search", {**body, "shortlist": 10}).json()["hits"]
    like = [{"item": names[0]}, GALLERY / "images" / "scene-011.jpg"]
    expected = Retriever(library.table, library.encoder, library.reranker, shortlist=10).search(
        like=like, unlike=[{"item": names[1]}], k=3
    )
    assert [hit["id"] for hit in found] == [hit.id for hit in expected.hits]
    assert [hit["p"] for hit in found] == pytest.approx([hit.p for hit in expected.hits], abs=2e-3)


def test_filters_are_plain_data(server: Running) -> None:
    asked = {"query": {"text": "a"}, "rerank": False, "k": 100}
    found = server.post("/v1/search", {**asked, "where": {"id": ["scene-001.jpg", "scene-002.jpg"]}})
    assert {hit["id"] for hit in found.json()["hits"]} == {"scene-001.jpg", "scene-002.jpg"}
    wrong = server.post("/v1/search", {**asked, "where": {"id = 'a' OR 1": 1}})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "unknown_name")
    text = server.post("/v1/search", {**asked, "where": "id = 'scene-001.jpg'"})
    assert text.status_code == 422


def test_a_stream_tells_the_first_look_then_scores_then_the_end(server: Running, image_of: Named) -> None:
    body = {"query": {"image": image_of("scene-005.jpg")}, "k": 4}
    with server.client.stream("POST", "/v1/search", json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = events(response)
    names = [name for name, _ in told]
    assert names[0] == "first" and names[-1] == "end" and set(names[1:-1]) == {"scores"}
    assert len(names) > 3
    scores = {row["id"]: row["p"] for name, data in told if name == "scores" for row in data["scores"]}
    first, end = told[0][1], told[-1][1]
    assert len(scores) == len(first["hits"]) == 40
    assert told[-2][1]["done"] == told[-2][1]["total"] == 40
    assert [hit["rank"] for hit in first["hits"]] == list(range(1, 41))
    ranked = sorted(first["hits"], key=lambda hit: -(0.5 * hit["coarse"] + 0.5 * scores[hit["id"]]))
    assert [hit["id"] for hit in end["hits"]] == [hit["id"] for hit in ranked[:4]]
    assert end["hits"] == server.post("/v1/search", body).json()["hits"]


def test_an_error_in_a_stream_is_its_last_event(server: Running) -> None:
    body = {"query": {"item": "none.jpg"}, "stream": True}
    with server.client.stream("POST", "/v1/search", json=body) as response:
        assert [(name, data["error"]["code"]) for name, data in events(response)] == [("error", "unknown_item")]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"query": {}}, 422, "empty", "query"),
        ({"query": {"text": "a"}, "kk": 3}, 422, "extra_forbidden", "kk"),
        ({"query": {"text": "a"}, "table": "other"}, 404, "unknown_table", "table"),
        ({"query": {"text": "a"}, "prompt": "/etc/passwd.toml"}, 400, "unknown_name", None),
        ({"query": {"text": "a"}, "fusion": "sideways"}, 400, "unknown_name", None),
        ({"query": {"text": "a"}, "k": 0}, 422, "greater_than_equal", "k"),
        ({"query": {"text": "a"}, "k": 100_000}, 422, "too_many", "k"),
        ({"query": {"item": "a", "image": "b"}}, 422, "too_many_queries", "query"),
        ({"query": {"item": "a", "text": "b" * 50_001}}, 422, "text_too_long", "query.text"),
        ({"query": {"image": "AAAA"}}, 422, "image_not_an_image", "query"),
        ({"query": {"image": "?"}}, 422, "bad_image", "query"),
        ({"query": {"image": "http://example.org/a.jpg"}}, 403, "urls_refused", "query"),
        ({"query": {"image": "file:///etc/passwd"}}, 422, "bad_image", "query"),
    ],
)
def test_refusals_say_what_is_wrong(server: Running, body: Any, status: int, code: str, param: str | None) -> None:
    answer = server.post("/v1/search", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
    assert set(error) == {"type", "code", "message", "param"}
    assert "Traceback" not in answer.text and "/work" not in answer.text and "/tmp" not in answer.text


def test_identical_requests_in_work_are_answered_once(server: Running, image_of: Named) -> None:
    body = {"query": {"image": image_of("scene-021.jpg")}, "k": 3}
    before, shared = server.service.queue.pairs_done, server.service.jobs.shared
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(server.post("/v1/search", body).json())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.dumps(one["hits"]) for one in found}) == 1
    done, joined = server.service.queue.pairs_done - before, server.service.jobs.shared - shared
    assert joined >= 1 and done == 40 * (4 - joined)


def test_tables_models_and_previews(server: Running) -> None:
    (table,) = server.client.get("/v1/tables").json()["tables"]
    assert (table["name"], table["items"], table["encoder"]) == ("photos", 40, "tiny-clip")
    assert server.client.get("/v1/tables/photos").json()["bytes"]["vectors"] > 0
    assert [row["id"] for row in server.client.get("/v1/models").json()["data"]] == ["tiny-vl", "tiny-clip"]
    hit = server.post("/v1/search", {"query": {"item": "scene-002.jpg"}, "k": 1, "rerank": False}).json()["hits"][0]
    shown = server.client.get(hit["preview"])
    assert shown.headers["content-type"] == "image/webp" and "immutable" in shown.headers["cache-control"]
    again = server.client.get(hit["preview"], headers={"If-None-Match": shown.headers["etag"]})
    assert again.status_code == 304 and not again.content
    bare = server.client.get(hit["preview"].partition("?")[0])
    assert bare.headers["cache-control"] == "private, no-cache" and bare.content == shown.content
    assert server.client.get("/v1/tables/photos/items/none/preview").status_code == 404


def test_another_writer_shows_without_a_restart(server: Running, drawings: Path) -> None:
    from looktwice.store import Table

    other = Table.open(drawings)
    (row,) = other.get(["scene-000.jpg"])
    try:
        other.delete(["scene-000.jpg"])
        server.service.tables.get(None).touch()
        assert server.client.get("/v1/tables").json()["tables"][0]["items"] == 39
    finally:
        other.add([row])
        server.service.tables.get(None).touch()
    assert server.client.get("/v1/tables").json()["tables"][0]["items"] == 40


def test_health_readiness_and_metrics(server: Running) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    text = server.client.get("/metrics").text
    for name in ("num_requests_running", "num_requests_waiting", "request_queue_time_seconds", "request_success_total"):
        assert f"looktwice_{name}" in text
    assert 'looktwice_request_total{method="POST",route="/v1/search",status="200"}' in text


def test_a_data_uri_and_bare_base64_are_the_same_image(server: Running, image_of: Named) -> None:
    bare = image_of("scene-009.jpg")
    found = [
        server.post("/v1/search", {"query": {"image": image}, "k": 2, "rerank": False}).json()["hits"]
        for image in (bare, f"data:image/jpeg;base64,{bare}", base64.encodebytes(base64.b64decode(bare)).decode())
    ]
    assert found[0] == found[1] == found[2]
