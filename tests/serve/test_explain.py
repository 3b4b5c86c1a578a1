"""An explanation repeats the search's numbers, and its map points at what the model looked at."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from serving import GALLERY, Running

from looktwice.serve.occlusion import box_around, grid_of, occlusion_map, token_boxes
from looktwice.types import Block, Item, TextIds, VisualTokens

Named = Callable[[str], str]


def coded(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_an_explanation_repeats_what_the_search_said(server: Running, image_of: Named) -> None:
    image = {"image": image_of("scene-003.jpg")}
    hit = server.post("/v1/search", {"query": image, "k": 1}).json()["hits"][0]
    found = server.post("/v1/explain", {"query": image, "candidate": {"item": hit["id"]}}).json()
    assert found["p"] == pytest.approx(hit["p"], abs=2e-3)
    assert found["off_mass"] == pytest.approx(hit["off_mass"], abs=1e-3)
    parts = found["contributions"]
    assert parts["coarse"] == pytest.approx(hit["coarse"], abs=1e-3)
    assert parts["from_coarse"] + parts["from_p"] == pytest.approx(hit["score"], abs=2e-3)
    assert sum(label["share"] for label in found["labels"]) == pytest.approx(1)
    assert {label["name"] for label in found["labels"]} == {"0", "1"}
    yes = next(label for label in found["labels"] if label["name"] == "1")
    assert yes["share"] == pytest.approx(found["p"], abs=1e-4)
    shape = found["map"]
    assert len(shape["values"]) == shape["rows"] and all(len(row) == shape["cols"] for row in shape["values"])


def test_the_map_points_at_the_object_that_the_query_shows(server: Running) -> None:
    thing = Image.open(sorted((GALLERY / "queries").glob("*.jpg"))[0]).convert("RGB")
    small = thing.resize((60, 60))
    canvas = Image.new("RGB", (120, 120), "white")
    canvas.paste(small, (60, 60))
    body = {"query": {"image": coded(thing)}, "candidate": {"image": coded(canvas)}, "prompt": "object"}
    found = server.post("/v1/explain", body).json()
    values = np.array(found["map"]["values"])
    rows, cols = values.shape
    falls = np.abs(values)
    inside, outside = falls[rows // 2 :, cols // 2 :].mean(), falls[: rows // 2, : cols // 2].mean()
    assert inside > 3 * outside, (inside, outside)


def test_a_text_has_no_map_and_a_pair_needs_no_table(server: Running, image_of: Named) -> None:
    image = {"image": image_of("scene-003.jpg")}
    found = server.post("/v1/explain", {"query": image, "candidate": {"text": "a horse"}}).json()
    assert found["map"] is None and found["contributions"] is None and 0 <= found["p"] <= 1
    none = server.post("/v1/explain", {"query": image, "candidate": {"item": "none"}})
    assert (none.status_code, none.json()["error"]["code"]) == (404, "unknown_item")


def test_tiles_lie_in_the_images_shape() -> None:
    tile, marker = Block("tile", 2, 2), TextIds((1,))
    layout = (marker, tile, marker, tile, marker, Block("global", 2, 2))
    wide, high = token_boxes(layout, (200, 100)), token_boxes(layout, (100, 200))
    assert wide[4] == (0.5, 0.0, 0.75, 0.5) and high[4] == (0.0, 0.5, 0.5, 0.75)
    assert wide[8:] == high[8:] == [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)]
    assert grid_of(wide, (200, 100), 64) == (2, 4)
    assert grid_of(token_boxes((Block("global", 40, 40),), (100, 100)), (100, 100), 64) == (8, 8)


def test_a_cell_hides_its_own_tokens_only() -> None:
    features = torch.arange(12.0).reshape(4, 3)
    levels = torch.stack([features, features + 1])
    item = Item("c", tokens=VisualTokens(features, levels, (Block("global", 2, 2),)))
    seen: list[Item] = []

    def p_of(variants: list[Item]) -> np.ndarray:
        seen.extend(variants)
        return np.array([0.9, 0.1, np.nan, 0.8], np.float32)

    found = occlusion_map(p_of, item, (10, 10), 0.9, 16)
    assert np.allclose(found.values, [[0, 0.8], [0, 0.1]], atol=1e-6)
    assert found.box == (0.5, 0.0, 1.0, 0.5)
    hidden = seen[1].tokens
    assert hidden is not None and hidden.levels is not None
    assert torch.equal(hidden.features[1], features.mean(0)) and torch.equal(
        hidden.features[[0, 2, 3]], features[[0, 2, 3]]
    )
    assert torch.equal(hidden.levels[1, 1], levels[1].mean(0)) and torch.equal(item.tokens.features, features)  # type: ignore[union-attr]
    assert box_around([[0.0, 0.001]]) is None
