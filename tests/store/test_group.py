"""Several tables searched as one: the same answers as one table that holds all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.store import Table, TableGroup, TokenRow
from looktwice.types import EncoderInfo


def made(path: Path, rows: list, encoder: EncoderInfo = ENCODER) -> Table:
    table = Table.create(path, encoder, columns={"year": int})
    table.add(rows)
    return table


@pytest.fixture
def group(tmp_path: Path) -> TableGroup:
    rows = random_rows(90)
    parts = [made(tmp_path / f"{name}.lt", rows[i::3]) for i, name in enumerate("abc")]
    opened = TableGroup.open(parts)
    assert isinstance(opened, TableGroup)
    return opened


def test_answers_are_those_of_one_table_with_all_rows(group: TableGroup, tmp_path: Path) -> None:
    whole = made(tmp_path / "whole.lt", random_rows(90))
    queries = np.random.default_rng(5).normal(size=(12, 8))
    for k, where in ((7, None), (200, None), (5, "year >= 60")):
        mine, theirs = group.search_many(queries, k, where), whole.search_many(queries, k, where)
        assert [[(group.split(c.id)[1], c.coarse) for c in one] for one in mine] == [
            [(c.id, c.coarse) for c in one] for one in theirs
        ]
    assert group.search(queries[0], 3) == group.search_many(queries[:1], 3)[0]
    assert len(group) == 90 and group.count("year < 10") == 10


def test_rows_are_found_by_table_and_id(group: TableGroup) -> None:
    ids = ["c.lt/00002", "a.lt/00000", "b.lt/00001", "a.lt/00003"]
    assert [item.id for item in group.get(ids)] == ids
    assert group.vectors(ids) == pytest.approx(np.stack([item.vector for item in group.get(ids)]))
    assert {
        r["id"]: r["sha256"] for r in group.lookup([*ids, "00001", "d.lt/00001", "a.lt/00001"], ["id", "sha256"])
    } == {id_: f"{int(id_[-5:]):064x}" for id_ in ids}
    assert len(list(group.rows(["id"]))) == 90 and "b.lt/00001" in {r["id"] for r in group.rows(["id"])}
    with pytest.raises(UnknownName):
        group.get(["00001"])
    with pytest.raises(UnknownName):
        group.get(["a.lt/00001"])
    with pytest.raises(UsageError, match="one table"):
        group.info()


def test_only_tokens_of_all_tables_are_used(group: TableGroup) -> None:
    from store_helpers import token_set

    for name, table in group.tables.items():
        assert isinstance(table, Table)
        table.note_tokens(token_set(tokens_key="shared"))
        first = next(iter(table.rows(["id", "sha256"])))
        table.put_codes([TokenRow(first["id"], first["sha256"], "shared", "[]", name.encode(), 0)])
        if name == "a.lt":
            table.note_tokens(token_set(tokens_key="own"))
    again = TableGroup(list(group.tables.values()))
    assert [entry["tokens_key"] for entry in again.manifest.tokens] == ["shared"]
    found = again.read_codes(["c.lt/00002", "b.lt/00001", "a.lt/00003"], "shared")
    assert [row and (row.id, row.codes) for row in found] == [("c.lt/00002", b"c.lt"), ("b.lt/00001", b"b.lt"), None]


def test_a_snapshot_of_a_group_does_not_change(group: TableGroup) -> None:
    seen = group.snapshot()
    table = group.tables["b.lt"]
    assert isinstance(table, Table)
    table.add([row("new")])
    assert len(seen) == 90 and len(group) == 91


def test_tables_that_cannot_be_searched_together(tmp_path: Path) -> None:
    first = made(tmp_path / "a.lt", random_rows(3))
    other = made(tmp_path / "b.lt", random_rows(3), EncoderInfo("another", "1", "none", 8))
    with pytest.raises(Mismatch, match=r"a\.lt and .*b\.lt cannot be searched together.*toy.*another"):
        TableGroup([first, other])
    with pytest.raises(UsageError, match="named twice"):
        TableGroup.open([tmp_path / "a.lt", first])
    with pytest.raises(UsageError, match="no table"):
        TableGroup.open([])
    assert TableGroup.open([first]) is first
    (tmp_path / "sub").mkdir()
    same_name = made(tmp_path / "sub" / "a.lt", random_rows(3))
    assert list(TableGroup([first, same_name]).tables) == [str(first.path), str(same_name.path)]


def test_previews_are_those_of_the_item_s_table(tmp_path: Path) -> None:
    from looktwice.indexing import index
    from looktwice.search.retriever import Retriever
    from looktwice.sources import scan
    from looktwice.testing import BrightnessScorer, ColorEncoder, make_images

    encoder = ColorEncoder()
    parts = []
    for name in ("a", "b"):
        parts.append(Table.create(tmp_path / f"{name}.lt", encoder.info, previews=64))
        index(parts[-1], scan([make_images(tmp_path / name)]), encoder)
    group = TableGroup(parts)
    ids = ["b.lt/red-0.png", "a.lt/blue-1.png", "c.lt/none", "a.lt/none.png"]
    assert set(group.previewed(ids)) == set(ids[:2]) and group.preview(ids[0]) == parts[1].preview("red-0.png")
    (tmp_path / "b" / "red-0.png").unlink()
    hits = Retriever(group, encoder, BrightnessScorer()).search("red", k=24).ranking
    shown = {hit.id: hit for hit in hits}
    assert shown["b.lt/red-0.png"].p == pytest.approx(shown["a.lt/red-0.png"].p, abs=0.02)
    assert (shown["b.lt/red-0.png"].explain or {}).get("image") == "preview"
