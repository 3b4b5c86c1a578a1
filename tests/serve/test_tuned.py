"""A server with a tuned fusion, or a calibration: it holds for the models that made it, and for no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import GALLERY, running

from looktwice import Retriever
from looktwice.rank import Tuned
from looktwice.rank.calibration import Sample, fit, source_of
from looktwice.serve.settings import Settings

FUSION = "stack:bias=-1.0,coarse=1.0,logit=0.5,entropy=-0.5"


@pytest.fixture(scope="module")
def source(drawings: Path) -> dict[str, object]:
    """The settings of a search with the bundled models."""
    return source_of(Retriever(drawings, scorer="tiny-vl").search(GALLERY / "images" / "scene-003.jpg", k=2).settings)


def test_a_server_ranks_by_its_tuned_fusion(
    drawings: Path, source: dict[str, object], image_of: Callable[[str], str], tmp_path: Path
) -> None:
    Tuned(source, "auto", FUSION, {}).save(tmp_path / "t.json")
    curve = [Sample(f"q{i}", 0.1 + 0.05 * i, 0.1, i > 4, f"i{i}") for i in range(10)]
    fit(curve, source).save(tmp_path / "c.json")
    files = {"tuned": tmp_path / "t.json", "calibration": tmp_path / "c.json"}
    with running(Settings(tables=(drawings,), shortlist=6, **files)) as server:
        asked = {"query": {"image": image_of("scene-003.jpg")}, "k": 3}
        answer = server.post("/v1/search", asked)
        assert answer.status_code == 200, answer.text
        expected = Retriever(drawings, scorer="tiny-vl", fusion=FUSION, shortlist=6)
        own = expected.search(GALLERY / "images" / "scene-003.jpg", k=3)
        assert [hit["id"] for hit in answer.json()["hits"]] == [hit.id for hit in own.hits]
        assert answer.json()["hits"][0]["score"] == pytest.approx(own.hits[0].score, abs=1e-3)
        assert server.client.get("/v1/tables/photos").json()["fusion"] == FUSION
        other = server.post("/v1/search", {**asked, "fusion": "0.5"}).json()["hits"]
        assert other[0]["score"] != pytest.approx(own.hits[0].score, abs=1e-3), "a request may name its own"


def test_a_request_with_another_prompt_is_refused_alone(
    drawings: Path, source: dict[str, object], image_of: Callable[[str], str], tmp_path: Path
) -> None:
    curve = [Sample(f"q{i}", 0.1 + 0.05 * i, 0.1, i > 4, f"i{i}") for i in range(10)]
    fit(curve, source).save(tmp_path / "c.json")
    with running(Settings(tables=(drawings,), shortlist=2, calibration=tmp_path / "c.json")) as server:
        asked = {"query": {"image": image_of("scene-003.jpg")}, "k": 1}
        before = server.post("/v1/search", asked)
        assert before.status_code == 200, before.text
        question = {"name": "x", "instructions": "Is it red?"}
        server.post("/v1/decisions", {"input": "a drawing", "questions": [question]})
        other = server.post("/v1/search", {"query": {"text": "a red circle"}, "k": 1})
        assert other.status_code >= 400 and "prompt" in other.json()["error"]["message"]
        after = server.post("/v1/search", asked)
    assert after.status_code == 200, after.text
    assert after.json()["hits"] == before.json()["hits"]


def test_a_fusion_for_other_models_is_refused(
    drawings: Path, source: dict[str, object], image_of: Callable[[str], str], tmp_path: Path
) -> None:
    Tuned({**source, "revision": "another"}, "auto", FUSION, {}).save(tmp_path / "t.json")
    with running(Settings(tables=(drawings,), shortlist=2, tuned=tmp_path / "t.json")) as server:
        answer = server.post("/v1/search", {"query": {"image": image_of("scene-003.jpg")}, "k": 1})
    assert answer.status_code >= 400 and "revision" in json.dumps(answer.json())
