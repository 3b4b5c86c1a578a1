"""Rerank, score and decisions: real clients get the library's numbers, in the shapes that they know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from serving import GALLERY, Running

from looktwice import Reranker

Named = Callable[[str], str]
NAMES = ["scene-002.jpg", "scene-016.jpg", "scene-003.jpg"]
TEXTS = ["a horse in a field", "a red kettle", "two boats"]


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return Reranker("tiny-vl")


def by_index(results: Any) -> dict[int, float]:
    return {row["index"]: row["relevance_score"] for row in results}


def close(found: dict[int, float], expected: list[dict[str, Any]]) -> None:
    assert list(found) == [row["corpus_id"] for row in expected]
    for row in expected:
        assert found[row["corpus_id"]] == pytest.approx(row["score"], abs=2e-3)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_images_for_an_image_in_jinas_shape(server: Running, reranker: Reranker, image_of: Named, path: str) -> None:
    body = {"model": "tiny-vl", "query": {"image": image_of("scene-003.jpg")}}
    answer = server.post(path, {**body, "documents": [{"image": image_of(name)} for name in NAMES]}).json()
    images = [GALLERY / "images" / name for name in NAMES]
    close(by_index(answer["results"]), reranker.rank(GALLERY / "images" / "scene-003.jpg", images))
    assert answer["model"] == "tiny-vl" and answer["usage"] == {"pairs": 3}


def test_mixed_documents_in_vllms_shape_are_one_result_each(
    server: Running, reranker: Reranker, image_of: Named
) -> None:
    uris = [f"data:image/jpeg;base64,{image_of(name)}" for name in NAMES]
    documents = [
        {"content": [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]}
        for uri, text in zip(uris, TEXTS, strict=True)
    ]
    body = {"query": {"content": [{"type": "text", "text": "a horse"}]}, "documents": documents, "top_n": 0}
    answer = server.post("/v1/rerank", {**body, "return_documents": True}).json()
    given = [{"image": GALLERY / "images" / n, "text": t} for n, t in zip(NAMES, TEXTS, strict=True)]
    close(by_index(answer["results"]), reranker.rank("a horse", given))
    assert all(row["document"]["content"] == documents[row["index"]]["content"] for row in answer["results"])


def test_coheres_own_client(server: Running, reranker: Reranker) -> None:
    cohere = pytest.importorskip("cohere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = cohere.ClientV2(api_key="none", base_url=server.url)
        answer = client.rerank(model="tiny-vl", query="a horse", documents=TEXTS, top_n=2)
    close({row.index: row.relevance_score for row in answer.results}, reranker.rank("a horse", TEXTS, top_k=2))
    assert answer.meta.api_version.version == "2"


def test_an_instruction_counts_and_two_are_refused(server: Running) -> None:
    plain, with_one, alias = (
        by_index(server.post("/v1/rerank", {"query": "a horse", "documents": TEXTS, **more}).json()["results"])
        for more in ({}, {"instruction": "Find boats."}, {"instruct": "Find boats."})
    )
    assert plain != with_one == alias
    both = server.post("/v1/rerank", {"query": "a", "documents": ["b"], "instruct": "c", "instruction": "d"})
    assert (both.status_code, both.json()["error"]["code"]) == (422, "two_instructions")


def test_scores_one_to_one_one_to_many_and_pair_by_pair(server: Running, reranker: Reranker, image_of: Named) -> None:
    def scores(**body: Any) -> list[float]:
        answer = server.post("/v1/score", body)
        assert answer.status_code == 200, answer.text
        return [row["score"] for row in answer.json()["data"]]

    images = [{"image": image_of(name)} for name in NAMES]
    expected = reranker.predict([(GALLERY / "images" / NAMES[0], GALLERY / "images" / name) for name in NAMES])
    assert scores(queries=images[0], documents=images) == pytest.approx(list(expected), abs=2e-3)
    assert scores(data_1=images[0], data_2=images[1]) == pytest.approx([expected[1]], abs=2e-3)
    pairs = scores(text_1=TEXTS, text_2=TEXTS[::-1])
    assert pairs == pytest.approx(list(reranker.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))), abs=2e-3)
    wrong = server.post("/score", {"queries": TEXTS, "documents": TEXTS[:2]})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "wrong_lengths")


def test_decisions_about_shared_evidence(server: Running, image_of: Named) -> None:
    uri = f"data:image/jpeg;base64,{image_of('scene-003.jpg')}"
    same = f"data:image/jpeg;base64,{image_of('scene-010.jpg')}"
    question = "Does the second image show the object of the first?"
    asked = [
        {"type": "predicate", "name": "horse", "instructions": "Is there a horse?"},
        *(
            {
                "type": "predicate",
                "name": f"pair-{i}",
                "instructions": [{"type": "input_text", "text": question}, {"type": "input_image", "image_url": one}],
            }
            for i, one in enumerate((uri, same))
        ),
    ]
    message = {"role": "user", "content": [{"type": "input_image", "image_url": uri}]}
    answer = server.post("/v1/decisions", {"model": "tiny-vl", "input": [message], "questions": asked}).json()
    found = {row["name"]: row for row in answer["answers"]}
    assert list(found) == ["horse", "pair-0", "pair-1"]
    for row in found.values():
        assert 0 <= row["probability"] <= 1
        assert row["label_mass"] + row["off_mass"] == pytest.approx(1)
    assert found["pair-0"]["probability"] != found["pair-1"]["probability"]
    alone = server.post("/v1/decisions", {"input": [message], "questions": asked[1:2]}).json()["answers"][0]
    assert alone["probability"] == pytest.approx(found["pair-0"]["probability"], abs=2e-3)


def test_three_images_in_one_question_are_refused(server: Running, image_of: Named) -> None:
    part = {"type": "input_image", "image_url": image_of("scene-003.jpg")}
    body = {"input": [{"content": [part, part, part]}], "questions": [{"name": "q", "instructions": "Same?"}]}
    answer = server.post("/v1/decisions", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_many_images")


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"query": "a", "documents": ["b", {"image": "!!"}]}, 422, "bad_image", "documents.1.image"),
        ({"query": "a", "documents": []}, 422, "too_short", "documents"),
        ({"query": "a", "documents": ["b"] * 1001}, 422, "too_many_documents", "documents"),
        ({"query": "a", "documents": ["b", " "]}, 422, "empty", "documents.1"),
        ({"query": "a", "documents": ["b"], "model": "other"}, 404, "unknown_model", "model"),
        ({"query": "a", "documents": ["b"], "prompt": "object"}, 400, "refused", None),
        ({"query": "a", "documents": ["b"], "truncation_side": "left"}, 422, "extra_forbidden", "truncation_side"),
        ({"query": "a", "documents": ["b", "cc"], "max_tokens_per_doc": 1}, 422, "document_too_long", "documents.1"),
        ({"query": "a" * 50_001, "documents": ["b"]}, 422, "text_too_long", "query"),
    ],
)
def test_refusals_name_the_part(server: Running, body: Any, status: int, code: str, param: str | None) -> None:
    answer = server.post("/v1/rerank", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error
