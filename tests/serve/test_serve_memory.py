"""Items whose image only lived in memory are shown by their preview, and searched like others."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from serving import GALLERY, running

from looktwice import Table
from looktwice.serve import Settings


def test_a_preview_of_the_table_is_served(tmp_path: Path) -> None:
    table = Table.open_or_create(tmp_path / "shop.lt", "tiny-clip", previews=64)
    drawing = Image.open(GALLERY / "images" / "scene-000.jpg")
    report = table.upsert([{"id": "sku 1", "image": drawing, "metadata": {"price": 5.0}}])
    assert report.inserted == 1
    with running(Settings(tables=(tmp_path / "shop.lt",), mllm=None)) as server:
        asked = {"query": {"text": "a drawing"}, "where": {"price": {"<": 9}}, "rerank": False}
        (hit,) = server.client.post("/v1/search", json=asked).json()["hits"]
        assert (hit["id"], hit["uri_kind"], hit["metadata"]) == ("sku 1", "memory", {"price": 5.0})
        shown = server.client.get(hit["preview"])
        assert shown.status_code == 200 and max(Image.open(io.BytesIO(shown.content)).size) == 64
