"""Near-duplicates folded in an answer, and listed for a whole table, on stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from looktwice.errors import UsageError
from looktwice.indexing import index
from looktwice.search.duplicates import find_duplicates, look_twice
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Table
from looktwice.testing import BrightnessScorer, ColorEncoder


@pytest.fixture
def table(tmp_path: Path, pictures: Path, colours: ColorEncoder) -> Table:
    """Twelve images of four colours: the three shades of one colour have the same vector."""
    made = Table.create(tmp_path / "t.lt", colours.info)
    index(made, scan([pictures]), colours)
    return made


def test_a_distinct_answer_shows_each_once_and_names_the_others(table: Table, colours: ColorEncoder) -> None:
    answer = Retriever(table, colours).search("red", k=10, distinct=True)
    assert [hit.id for hit in answer.hits] == ["red-0.png", "grey-0.png", "blue-0.png", "green-0.png"]
    assert answer.hits[0].folded == ("red-1.png", "red-2.png")
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4] and len(answer.shortlist) == 4
    assert answer.manifest["distinct"] == 0.97
    plain = Retriever(table, colours).search("red", k=10)
    assert "distinct" not in plain.manifest and not any(hit.folded for hit in plain.hits)


def test_the_shortlist_reaches_further_and_no_duplicate_is_scored(table: Table, colours: ColorEncoder) -> None:
    scorer = BrightnessScorer()
    answer = Retriever(table, colours, scorer, shortlist=3).search("red", k=3, distinct=True)
    assert scorer.shown == ["red-0.png", "grey-0.png", "blue-0.png"]
    assert all(hit.scored for hit in answer.hits) and answer.hits[0].folded == ("red-1.png", "red-2.png")


def test_a_wider_cosine_folds_more(table: Table, colours: ColorEncoder) -> None:
    retriever = Retriever(table, colours)
    assert [hit.id for hit in retriever.search("red", distinct=0.5).hits] == ["red-0.png", "blue-0.png", "green-0.png"]
    assert len(retriever.search("red", distinct=0.5, where="id != 'red-0.png'").hits[0].folded) == 4
    for bad in (0.0, 1.5, -1.0):
        with pytest.raises(UsageError, match="above 0 and at most 1"):
            retriever.search("red", distinct=bad)


def test_a_file_is_kept_rather_than_a_link_to_it(tmp_path: Path, colours: ColorEncoder) -> None:
    from PIL import Image

    home = tmp_path / "home"
    (home / "long-folder").mkdir(parents=True)
    Image.new("RGB", (8, 8), (250, 0, 0)).save(home / "long-folder" / "a-file-with-a-long-name.png")
    (home / "a.png").symlink_to(home / "long-folder" / "a-file-with-a-long-name.png")
    (tmp_path / "also").symlink_to(home)  # a link above the folder makes none of its files a link
    for number, folder in enumerate((home, tmp_path / "also")):
        table = Table.create(tmp_path / f"{number}.lt", colours.info)
        index(table, scan([folder]), colours)
        (group,) = find_duplicates(table)
        assert (group.keep, [one.id for one in group.duplicates]) == (
            "long-folder/a-file-with-a-long-name.png",
            ["a.png"],
        )


def test_groups_of_a_table_keep_the_largest_image(table: Table, colours: ColorEncoder, pictures: Path) -> None:
    from PIL import Image

    Image.new("RGB", (60, 60), (250, 0, 0)).save(pictures / "the-same-red-but-larger.png")
    index(table, scan([pictures]), colours)
    groups = find_duplicates(table)
    assert [(group.keep, len(group.duplicates)) for group in groups] == [
        ("the-same-red-but-larger.png", 3),
        ("blue-0.png", 2),
        ("green-0.png", 2),
        ("grey-0.png", 2),
    ]
    assert groups[0].duplicates[0].coarse == 1 and groups[0].record()["keep"] == "the-same-red-but-larger.png"
    assert [group.keep for group in find_duplicates(table, where="id like 'blue%'")] == ["blue-0.png"]
    assert find_duplicates(table, where="id = 'blue-0.png'") == find_duplicates(table, where="id = 'x'") == []


def test_second_look_drops_pairs_and_empty_groups(table: Table, colours: ColorEncoder, pictures: Path) -> None:
    retriever = Retriever(table, colours, BrightnessScorer())
    (pictures / "green-0.png").unlink()
    (pictures / "grey-1.png").unlink()
    groups = {group.keep: group for group in look_twice(find_duplicates(table), retriever)}
    assert [one.id for one in groups["red-0.png"].duplicates] == ["red-1.png"]  # 150 of 255 passes, 60 does not
    assert groups["red-0.png"].duplicates[0].p == pytest.approx(150 / 255)
    assert "cannot be read" in str(groups["green-0.png"].error) and not groups["green-0.png"].duplicates
    assert [one.id for one in groups["green-0.png"].unscored] == ["green-1.png", "green-2.png"]
    grey = groups["grey-0.png"].record()
    assert "'grey-1.png' could not be scored" in grey["error"] and "grey-1.png" not in str(grey["duplicates"])
    assert [one["id"] for one in grey["unscored"]] == ["grey-1.png"]
    assert list(look_twice(find_duplicates(table, where="id like 'red%'"), retriever, least_p=0.9)) == []


def test_second_look_asks_about_every_item_of_a_group_larger_than_the_shortlist(
    table: Table, colours: ColorEncoder, pictures: Path
) -> None:
    scorer = BrightnessScorer()
    groups = find_duplicates(table, least=0.01)  # of all colours
    alike = {one.id for group in groups for one in group.duplicates}
    assert max(len(group.duplicates) for group in groups) > 2
    whole = list(look_twice(groups, Retriever(table, colours, BrightnessScorer()), least_p=0.3))
    found = list(look_twice(groups, Retriever(table, colours, scorer, shortlist=2), least_p=0.3))
    assert set(scorer.shown) == alike and found == whole
    assert all(one.p is not None and one.p >= 0.3 for group in found for one in group.duplicates)
    p = [[one.p for one in group.duplicates] for group in found]
    assert p == [sorted(values, reverse=True) for values in p]
