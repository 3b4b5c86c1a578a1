"""Several tables of one server are searched as one, with the library's own answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, running

from looktwice import Retriever, Table
from looktwice.encode import load_encoder
from looktwice.serve import Settings
from looktwice.store import TableGroup
from looktwice.testing import ColorEncoder


@pytest.fixture(scope="module")
def both(drawings: Path, shop: Path) -> Iterator[Running]:
    with running(Settings(tables=(drawings, shop))) as made:
        yield made


def test_the_answer_is_the_librarys(both: Running, drawings: Path, shop: Path) -> None:
    group = TableGroup([Table.open(drawings), Table.open(shop)], ["photos", "shop"])
    expected = Retriever(group, load_encoder("tiny-clip"), "tiny-vl", shortlist=6).search("a horse", k=6)
    for table in (["photos", "shop"], "*"):
        found = both.post("/v1/search", {"table": table, "query": {"text": "a horse"}, "k": 6, "shortlist": 6}).json()
        assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected.hits]
        assert [hit["p"] for hit in found["hits"]] == pytest.approx([hit.p for hit in expected.hits], abs=2e-3)
        assert {hit["table"] for hit in found["hits"]} == {"photos", "shop"}
        assert found["manifest"]["tables"] == ["photos", "shop"]


def test_hits_name_their_table_and_lead_to_their_preview(both: Running) -> None:
    asked = {"table": "*", "query": {"item": "photos/scene-007.jpg"}, "k": 80, "rerank": False}
    hits = both.post("/v1/search", asked).json()["hits"]
    assert len(hits) == 79 and hits[0]["id"] == "shop/scene-007.jpg"  # the same drawing; not the query itself
    for hit in hits[:3]:
        assert hit["id"].startswith(f"{hit['table']}/")
        assert both.client.get(hit["preview"]).headers["content-type"] == "image/webp"


def test_one_name_in_a_list_is_that_table(both: Running) -> None:
    asked = {"query": {"text": "a horse"}, "k": 1, "rerank": False}
    (hit,) = both.post("/v1/search", {**asked, "table": ["shop"]}).json()["hits"]
    assert (hit["table"], hit["metadata"]["new"] in (True, False)) == ("shop", True)
    assert "/" not in hit["id"]


def test_a_stream_and_a_filter_over_both(both: Running) -> None:
    asked = {"table": ["shop", "photos"], "query": {"text": "a horse"}, "shortlist": 3, "stream": True, "k": 3}
    with both.client.stream("POST", "/v1/search", json=asked) as answer:
        text = "".join(answer.iter_text())
    assert text.count("event: ") >= 3 and "event: end" in text and "event: error" not in text
    answer = both.post("/v1/search", {**asked, "stream": False, "where": {"price": 3}}).json()
    assert answer["error"]["type"] == "invalid_request_error"  # not a column of both


@pytest.mark.parametrize(
    ("table", "status", "code"),
    [(["photos", "other"], 404, "unknown_table"), ([], 400, "table_needed"), (None, 400, "table_needed")],
)
def test_refusals(both: Running, table: object, status: int, code: str) -> None:
    answer = both.post("/v1/search", {"table": table, "query": {"text": "a"}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_tables_of_two_encoders_are_refused_without_their_places(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ColorEncoder()
    Table.create(tmp_path / "colours.lt", other.info)
    monkeypatch.setattr(
        "looktwice.serve.tables.load_encoder",
        lambda name, **how: other if name == other.info.name else load_encoder(name, **how),
    )
    with running(Settings(tables=(drawings, tmp_path / "colours.lt"), mllm=None)) as made:
        answer = made.post("/v1/search", {"table": "*", "query": {"text": "a"}})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "refused")
        assert str(tmp_path) not in answer.text and "cannot be searched together" in answer.text
