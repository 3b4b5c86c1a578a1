"""A query zoomed to its rare tokens: where they are, what is compared, what is drawn, and where it is switched off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_middle_stage import ToyEncoder
from token_fakes import ToyScorer, row_of

from looktwice.evaluate import Interval
from looktwice.search.examples import Examples
from looktwice.search.match_map import matches_of
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.probe import keep, probe
from looktwice.search.retriever import Retriever
from looktwice.store import Table
from looktwice.token_index import add_tokens
from looktwice.token_index.zoom import rare_place
from looktwice.types import EncoderInfo, Item, VisualTokens

TOKENS, SIDE = 7, 56
GROUND = (0, 0, 255)


class Fixed(ToyScorer):
    """A tower that scales every image to the same 7 × 7 tokens."""

    def _look(self, item: Item) -> VisualTokens:
        scaled = item.image and item.image.resize((SIDE, SIDE), Image.Resampling.BOX)
        return super()._look(replace(item, image=scaled))


def drawn(seed: int) -> Image.Image:
    """An image of 5 × 5 red cells on plain ground."""
    cells = np.full((TOKENS, TOKENS, 3), GROUND, np.uint8)
    cells[1:6, 1:6] = np.random.default_rng(seed).integers((200, 0, 0), 255, (5, 5, 3))
    return Image.fromarray(cells).resize((SIDE, SIDE), 0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("zoom")
    for n in range(12):
        drawn(n).save(folder / f"p{n}.png")
    table = Table.create(folder / "t.lt", EncoderInfo("toy", "1", "none", 8))
    table.add([row_of(folder / f"p{n}.png") for n in range(12)])
    add_tokens(table, Fixed(), "int8")
    return table


def small(n: int) -> Item:
    """A query that shows an image of the table as large as 2 × 2 tokens, on plain ground."""
    canvas = Image.new("RGB", (TOKENS * SIDE, TOKENS * SIDE), GROUND)
    canvas.paste(drawn(n).resize((2 * SIDE, 2 * SIDE), 0), (3 * SIDE, SIDE))
    return Item(f"small {n}", image=canvas)


def retriever(table: Table, **how: Any) -> Retriever:
    return Retriever(table, ToyEncoder(), Fixed(), **{"maxsim": 12, "shortlist": 2, "zoom": True, **how})


@pytest.mark.parametrize(
    ("rare", "place"),
    [
        ({(1, 3): 1.0}, (0.5, 0.1, 0.4)),
        ({(0, 4): 1.0}, (0.6, 0.0, 0.4)),
        ({(1, 3): 1.0, (2, 3): 0.4, (4, 0): 0.3}, (0.5, 0.2, 0.4)),
        ({(0, 0): 1.0, (2, 0): 0.5}, (0.0, 0.0, 0.6)),
        ({(0, 0): 1.0, (4, 4): 1.0}, None),
        ({}, None),
    ],
)
def test_the_box_holds_all_rare_tokens_and_lies_in_the_image(
    rare: dict[tuple[int, int], float], place: tuple[float, float, float] | None
) -> None:
    rarities = torch.full((5, 5), 0.2)
    for at, value in rare.items():
        rarities[at] += value
    assert rare_place(rarities.reshape(-1), (5, 5)) == (place if place is None else pytest.approx(place))


def test_a_small_object_is_compared_at_its_full_size(table: Table) -> None:
    query = small(4)
    with_zoom, without = (retriever(table, zoom=zoom).search(query, k=12, rerank=False) for zoom in (True, False))
    assert with_zoom.hits[0].id == "p4.png" and with_zoom.hits[0].maxsim == pytest.approx(1, abs=0.05)
    assert without.hits[0].id != "p4.png"
    (how,), (plain,) = with_zoom.manifest["middle_look"], without.manifest["middle_look"]
    assert "zoom" not in plain and how == {**plain, "zoom": {"rare": 0.35, "least": 2, "largest": 0.85}}
    worded = retriever(table).search(replace(query, text="a thing"), k=1, rerank=False)
    assert worded.hits[0].maxsim == with_zoom.hits[0].maxsim


def test_each_query_of_many_and_each_example_is_zoomed_by_itself(table: Table) -> None:
    queries = [small(4), small(5)]
    made = retriever(table)
    assert [answer.hits[0].id for answer in made.search_many(queries, rerank=False)] == ["p4.png", "p5.png"]
    both = made.search(Examples.of(queries, [], "both", "max"), k=2, rerank=False)
    assert {hit.id for hit in both.hits} == {"p4.png", "p5.png"}


def test_matches_of_zoomed_tokens_are_drawn_at_their_place_in_the_whole_query(table: Table) -> None:
    stage = retriever(table).middle
    assert stage is not None
    matches = matches_of(stage, small(4), ["p4.png"])["p4.png"]
    assert len(matches) == 6
    for match in matches:
        # the crop is the image of the table, so that boxes differ by its place
        assert np.allclose(match.query, (np.array([3, 1, 3, 1]) + 2 * np.array(match.image)) / TOKENS)


def test_a_search_zooms_as_the_probe_that_it_follows(table: Table) -> None:
    for zoom in (True, False):
        found = probe(table, MllmReranker(Fixed()), queries=4, depth=8, encoder=ToyEncoder(), zoom=zoom)
        keep(table, replace(found, gain=Interval(0.2, 0.1, 0.3)))
        assert table.manifest.tokens[0]["maxsim"].get("zoom", False) is zoom
        assert retriever(table, maxsim=None, zoom=None).config.zoom is zoom
        assert retriever(table, maxsim=None, zoom=not zoom).config.zoom is not zoom
        assert not retriever(table, zoom=None).config.zoom, "a look that is asked for is as it is asked for"
