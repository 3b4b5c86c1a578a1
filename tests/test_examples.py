"""Queries of several examples, on stand-ins whose answers can be worked out on paper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from looktwice.errors import QueryError, UnknownName, UsageError
from looktwice.indexing import index
from looktwice.score import Scorer
from looktwice.search.examples import Examples, combine, mixed
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Row, Table
from looktwice.testing import BrightnessScorer, ColorEncoder
from looktwice.types import Item, PairScores


@pytest.fixture
def table(tmp_path: Path, pictures: Path, colours: ColorEncoder) -> Table:
    made = Table.create(tmp_path / "t.lt", colours.info)
    index(made, scan([pictures]), colours)
    return made


class SameColour(Scorer):
    """p is the cosine of the mean colours of query and candidate. `asked` holds the query of every pair."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        self.asked += [query.id for _ in candidates]
        mine, theirs = ColorEncoder().encode([query])[0], ColorEncoder().encode(candidates)
        return rows((theirs @ mine).tolist())


def rows(p: Sequence[float]) -> PairScores:
    known = np.array(p, np.float32)
    return PairScores(
        known,
        np.stack([1 - known, known], axis=1),
        1 - known,
        np.zeros(len(p), np.float32),
        np.arange(len(p)),
        tuple("ok" if np.isfinite(value) else "failed" for value in known),
    )


def flat(*colour: int) -> Image.Image:
    return Image.new("RGB", (4, 4), colour)


def test_several_examples_search_by_the_mean_of_their_vectors(table: Table, colours: ColorEncoder) -> None:
    hits = Retriever(table, colours).search([flat(200, 0, 0), "a blue thing"], k=12).ranking
    assert {hit.id[:-6] for hit in hits[:9]} == {"red", "blue", "grey"}
    by_id = {hit.id: hit.coarse for hit in hits}
    assert by_id["red-0.png"] == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert by_id["grey-0.png"] == pytest.approx(2 / np.sqrt(6), abs=1e-3) and by_id["green-0.png"] == pytest.approx(0)


def test_a_negative_example_pushes_its_neighbours_down(table: Table, colours: ColorEncoder) -> None:
    retriever = Retriever(table, colours)
    plain = retriever.search("grey", k=12).ranking
    pushed = retriever.search("grey", unlike=["red"], k=12)
    place = {hit.id: hit.rank for hit in pushed.ranking}
    assert {hit.coarse for hit in plain if hit.id.startswith("red")} == {
        hit.coarse for hit in plain if "blue" in hit.id
    }
    assert max(place[f"blue-{i}.png"] for i in range(3)) < min(place[f"red-{i}.png"] for i in range(3))
    assert pushed.manifest["examples"] == {"like": 1, "unlike": 1, "rule": "mean", "unlike_weight": 0.25}


def test_an_item_of_the_table_is_an_example_and_not_a_hit(table: Table, colours: ColorEncoder) -> None:
    retriever = Retriever(table, colours)
    for query, like in (({"item": "red-0.png"}, []), (None, ["red-0.png"]), (["red-0.png"], [])):
        answer = retriever.search(query, like=like, k=12)
        assert [hit.id for hit in answer.hits[:2]] == ["red-1.png", "red-2.png"]
        assert len(answer.ranking) == 11
    assert retriever.search(like=["red-0.png"], k=3).query.image is not None
    assert len(retriever.search("blue", unlike=["red-0.png"], k=3).hits) == 3  # the cut comes after what is left out


def test_a_stored_vector_is_used_without_encoding(table: Table) -> None:
    class Counting(ColorEncoder):
        encoded = 0

        def encode(self, items: Sequence[Item]) -> np.ndarray:
            self.encoded += len(items)
            return super().encode(items)

    encoder = Counting()
    Retriever(table, encoder).search(like=["red-0.png"], unlike=["blue-0.png"])
    assert encoder.encoded == 0


@pytest.mark.parametrize(("rule", "green"), [("max", 1.0), ("mean", 0.5)])
def test_second_look_shows_every_positive_example(table: Table, colours: ColorEncoder, rule: str, green: float) -> None:
    scorer = SameColour()
    retriever = Retriever(table, colours, scorer, fusion="p-only", shortlist=12)
    answer = retriever.search(["red", "green"], unlike=["blue"], examples=rule, k=12)
    p = {hit.id: hit.p for hit in answer.ranking}
    assert p["green-0.png"] == pytest.approx(green, abs=1e-3) and p["blue-0.png"] == pytest.approx(0, abs=1e-3)
    assert p["grey-0.png"] == pytest.approx(1 / np.sqrt(3), abs=1e-3)
    assert len(scorer.asked) == 24 and len(set(scorer.asked)) == 2
    assert answer.manifest["candidates"]["scored"] == 24


def test_one_example_scores_as_the_query_itself(table: Table, colours: ColorEncoder) -> None:
    retriever = Retriever(table, colours, SameColour(), shortlist=12)
    assert retriever.search(["red"], k=12).ranking == retriever.search("red", k=12).ranking


def test_joined_scores_keep_whole_rows_and_skip_failed_ones() -> None:
    nan = float("nan")
    joined = combine([rows([0.2, nan, nan]), rows([0.6, 0.4, nan])], "max")
    assert joined.p[:2] == pytest.approx([0.6, 0.4]) and np.isnan(joined.p[2])
    assert joined.status == ("ok", "ok", "failed") and joined.entropy[:2] == pytest.approx([0.4, 0.6])
    joined = combine([rows([0.2, nan]), rows([0.6, 0.4])], "mean")
    assert joined.p == pytest.approx([0.4, 0.4]) and joined.status == ("ok", "ok")


def test_a_row_of_examples_among_many_queries(table: Table, colours: ColorEncoder) -> None:
    first, second, third = Retriever(table, colours).search_many(["red", ["red", "blue"], []], k=3)
    assert first.hits[0].id == "red-0.png" and "examples" not in first.manifest
    assert second.manifest["examples"]["like"] == 2
    assert third.error is not None and "no positive example" in str(third.error)


def with_both(table: Table, path: Path) -> Table:
    """The table with a red image that is called green, and a vector like neither."""
    flat(250, 0, 0).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with table.writer():
        table.add([Row("both", path.as_uri(), digest, 4, 4, "green", {}, np.ones(8, np.float32) / np.sqrt(8))])
    return table


@pytest.mark.parametrize("readable", [True, False])
def test_a_direction_encodes_what_it_leaves_of_a_stored_item(
    table: Table, colours: ColorEncoder, tmp_path: Path, readable: bool
) -> None:
    made = with_both(table, tmp_path / "both.png")
    if not readable:
        (tmp_path / "both.png").unlink()

    def first(query: Any, direction: str) -> list[tuple[str, float]]:
        found = Retriever(made, colours, direction=direction).search(query, k=13).hits
        return [(hit.id, hit.coarse) for hit in found if hit.id != "both"]

    asked = {"item": "both"}
    assert first(asked, "text-to-image") == first({"text": "green"}, "text-to-image") != first(asked, "auto")
    if readable:
        assert first(asked, "image-to-image") == first({"image": flat(250, 0, 0)}, "image-to-image")
        assert first(asked, "both-to-image") == first(asked, "auto"), "the stored vector is that of both"
    else:
        with pytest.raises(QueryError, match=r"cannot be read .* but the direction image-to-image needs its image"):
            first(asked, "image-to-image")


def test_examples_that_cannot_be_used(table: Table, colours: ColorEncoder, pictures: Path) -> None:
    retriever = Retriever(table, colours, BrightnessScorer())
    with pytest.raises(UsageError, match="query is missing"):
        retriever.search(unlike=["red"])
    with pytest.raises(QueryError, match="neither a file nor an item"):
        retriever.search(like=["no-such.png"])
    with pytest.raises(QueryError, match="has no item 'red'"):
        retriever.search({"item": "red"})
    with pytest.raises(UsageError, match="must be a list"):
        retriever.search("red", like="blue")
    with pytest.raises(UnknownName, match="rule for examples"):
        retriever.search(["red", "blue"], examples="min")
    with pytest.raises(QueryError, match="non-finite"):
        retriever.search(["red", "nothing that has a colour"])
    (pictures / "red-0.png").unlink()
    with pytest.raises(QueryError, match="cannot be read"):
        retriever.search(like=["red-0.png"])
    assert retriever.search(like=["red-0.png"], rerank=False).hits[0].id == "red-1.png"


def test_vectors_that_cancel_out_have_no_direction() -> None:
    query = Examples.of([Item("a", text="red")], [Item("b", text="red")] * 2, "q")
    whole = Examples("q", like=query.like, unlike=query.unlike, weight=1.0)
    assert np.isnan(mixed(whole, list(ColorEncoder().encode([*whole.like, *whole.unlike])))).all()
