"""What the page reads: items, values of columns, originals, the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import GALLERY, Running, running

from looktwice.rank.calibration import Sample, fit
from looktwice.serve import Settings
from looktwice.serve.routes.tables import _calibration

TABLE = "/v1/tables/shop"


@pytest.fixture(scope="module")
def shop_server(shop: Path) -> Iterator[Running]:
    with running(Settings(tables=(shop,), mllm=None)) as made:
        yield made


def get(server: Running, path: str, **params: Any) -> Any:
    answer = server.client.get(TABLE + path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_table_says_what_it_is_and_what_may_be_asked(shop_server: Running, shop: Path) -> None:
    tables = shop_server.client.get("/v1/tables").json()
    assert [(t["name"], t["default"], t["writable"]) for t in tables["tables"]] == [("shop", True, False)]
    about = get(shop_server, "")
    assert about["items"] == 40 and about["encoder"]["name"] == "tiny-clip" and about["encoder"]["dim"] == 192
    assert about["local"] and about["path"] == str(shop) and about["mllm"] is None and not about["maxsim"]
    assert about["limits"] == {"k": 10_000, "shortlist": 5000, "maxsim": 10_000, "body": 20_000_000}


def test_facets_count_values_and_span_numbers(shop_server: Running) -> None:
    columns = {column["name"]: column for column in get(shop_server, "/facets")["columns"]}
    assert columns["shelf"]["values"] == [{"value": "left", "count": 20}, {"value": "right", "count": 20}]
    price = columns["price"]
    assert (price["type"], price["values"], price["min"], price["max"]) == ("number", None, 0.5, 39.5)
    assert columns["new"]["type"] == "bool" and columns["new"]["missing"] == 0
    assert sum(one["count"] for one in columns["new"]["values"]) == 40


def test_items_come_page_by_page_each_once(shop_server: Running) -> None:
    pages = [get(shop_server, "/items", offset=offset, limit=15) for offset in (0, 15, 30, 45)]
    ids = [one["id"] for page in pages for one in page["items"]]
    assert [len(page["items"]) for page in pages] == [15, 15, 10, 0]
    assert len(set(ids)) == 40 and all(page["total"] == 40 for page in pages)


def test_an_item_has_its_path_for_people_at_this_machine_only(shop: Path, shop_server: Running) -> None:
    found = get(shop_server, "/items/scene-003.jpg")
    assert found["path"] == str(GALLERY / "images" / "scene-003.jpg")
    assert (found["width"], found["height"]) == (192, 192) and found["metadata"]["shelf"] == "right"
    with running(Settings(tables=(shop,), mllm=None, api_keys=("k" * 16,))) as closed:
        closed.client.headers["Authorization"] = "Bearer " + "k" * 16
        assert "path" not in get(closed, "/items/scene-003.jpg") and get(closed, "")["path"] is None
        assert not any(str(GALLERY) in str(entry) for entry in get(closed, "/ledger")["entries"])


def test_an_original_is_the_file_byte_by_byte(shop_server: Running) -> None:
    answer = shop_server.client.get(f"{TABLE}/items/scene-003.jpg/original")
    expected = (GALLERY / "images" / "scene-003.jpg").read_bytes()
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(expected).digest()
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["x-content-type-options"] == "nosniff"
    assert shop_server.client.get(f"{TABLE}/items/none.jpg/original").status_code == 404


def test_the_ledger_counts_reasons(shop_server: Running) -> None:
    page = get(shop_server, "/ledger", limit=1)
    assert page["total"] == 1 and page["reasons"] == {"missing": 1}
    assert page["entries"][0]["id"] == "gone.jpg"
    assert get(shop_server, "/ledger", offset=1)["entries"] == []


def test_a_calibration_is_told_as_a_curve() -> None:
    fitted = fit([Sample(str(q), p / 10, 1 - p / 10, p > 5) for q in range(30) for p in range(11)], {})
    told = _calibration(fitted)
    assert told is not None and told["thresholds"] == dict(fitted.thresholds) != {}
    assert told["curve"][25] == [0.5, fitted.probability(0.5)]
    assert _calibration(None) is None
