"""columns: listed, added, added twice; --exif."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Looktwice
from PIL import Image


def test_columns_are_listed_and_added(looktwice: Looktwice, tmp_path: Path) -> None:
    lines = [{"id": str(n), "text": "red", "metadata": {"year": year}} for n, year in enumerate((2020, "2021", 2022))]
    Path("l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert looktwice("index", "t.lt", "l.jsonl").code == 0
    assert looktwice("columns", "t.lt", "--json").records == []
    assert "No columns to filter on; make one" in looktwice("columns", "t.lt").err
    done = looktwice("columns", "t.lt", "add", "year:int")
    assert done.code == 0
    assert done.out == "year:int: 2 of 3 items have a value; 1 did not fit and is null\n"
    again = looktwice("columns", "t.lt", "add", "year:int", "--json")
    assert again.records == [{"name": "year", "type": "int", "values": 2, "items": 3, "unfit": 1}]
    assert [row["values"] for row in looktwice("columns", "t.lt", "--json").records] == [2]
    assert looktwice("search", "t.lt", "red", "--no-rerank", "--json", "--where", "year > 2020").records[0]["id"] == "2"
    report = looktwice("index", "t.lt", "l.jsonl", "--column", "year:int")
    assert report.code == 0 and "3 unchanged" in report.out


def test_what_is_refused(looktwice: Looktwice, own_table: Path) -> None:
    for arguments, why in (
        (["add"], "Name the columns to add"),
        (["list", "year:int"], "Name the columns to add"),
        (["drop", "year"], "Unknown action"),
        (["add", "year:date"], "column type"),
        (["add", "id"], "already exists"),
        (["add", "a b"], "not a valid column name"),
    ):
        done = looktwice("columns", own_table, *arguments)
        assert done.code == 2 and why in done.err, arguments
    assert looktwice("columns", own_table, "add", "year:int").code == 0
    done = looktwice("columns", own_table, "add", "year:str")
    assert done.code == 2 and "exists already, with the type int" in done.err


def test_exif_comes_with_the_option_and_stays(looktwice: Looktwice, pictures: Path) -> None:
    tags = Image.Exif()
    tags[306] = "2024:07:01 09:00:00"
    Image.new("RGB", (8, 8), (200, 0, 0)).save(pictures / "dated.jpg", exif=tags)
    assert looktwice("index", "t.lt", pictures, "--exif", "--column", "stars:int").code == 0
    assert looktwice("index", "t.lt", pictures, "--column", "stars:int").out.startswith("t.lt: 13 unchanged")
    found = looktwice("search", "t.lt", "red", "--no-rerank", "--json", "--where", "taken > '2024-06-01'")
    assert [hit["id"] for hit in found.records] == ["dated.jpg"]
    assert looktwice("index", "late.lt", pictures).code == 0
    assert "13 updated" in looktwice("index", "late.lt", pictures, "--exif").out
    named = {row["name"]: row["values"] for row in looktwice("columns", "late.lt", "--json").records}
    assert named["taken"] == 1 and named["file_time"] == named["file_size"] == 13
