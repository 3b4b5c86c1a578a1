"""`search --distinct` and `looktwice duplicates`."""

from __future__ import annotations

from pathlib import Path

from conftest import Looktwice


def test_distinct_hits_are_counted_and_named(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("search", table, "red", "--distinct", "--no-rerank", "--explain")
    assert done.code == 0 and "+2" in done.out and "alike" in done.out
    assert "Near-duplicates: red-1.png, red-2.png" in done.out
    done = looktwice("search", table, "red", "--distinct", "--no-rerank", "--json")
    assert done.records[0]["folded"] == ["red-1.png", "red-2.png"]
    assert len(done.records) == 4
    assert "folded" not in looktwice("search", table, "red", "--no-rerank", "--json").out
    done = looktwice("search", table, "red", "--min-cosine", "0.9")
    assert done.code == 2 and "without --distinct" in done.err


def test_groups_are_listed_and_the_exit_code_says_so(looktwice: Looktwice, table: Path, tmp_path: Path) -> None:
    done = looktwice("duplicates", table, "--report", "d.html")
    assert done.code == 3 and "8 near-duplicates in 4 groups, of 12 items" in done.err
    assert "keep" in done.out and "blue-2.png" in done.out
    page = (tmp_path / "d.html").read_text()
    assert "Near-duplicates in t.lt" in page and page.count("data:image/") == 12
    done = looktwice("duplicates", table, "--json", "--exit-zero")
    assert done.code == 0 and [record["keep"] for record in done.records] == [
        "blue-0.png",
        "green-0.png",
        "grey-0.png",
        "red-0.png",
    ]
    assert done.records[0]["duplicates"][0] == {"id": "blue-1.png", "coarse": 1.0, "p": None}
    done = looktwice("duplicates", table, "--where", "id like '%-0.png'")
    assert done.code == 0 and done.out == "" and "No near-duplicates" in done.err


def test_what_could_not_be_scored_is_named_apart(looktwice: Looktwice, pictures: Path) -> None:
    assert looktwice("index", "t.lt", pictures, "--previews", "off").code == 0
    (pictures / "grey-1.png").unlink()
    command = ("duplicates", "t.lt", "--rerank", "--min-p", "0.1", "--where")
    done = looktwice(*command, "id like 'grey%'", "--exit-zero", "--json")
    assert done.code == 3 and "Not looked at, in the group of 'grey-0.png': 'grey-1.png' could not be" in done.err
    (record,) = done.records
    assert [one["id"] for one in record["duplicates"]] == ["grey-2.png"]
    assert [one["id"] for one in record["unscored"]] == ["grey-1.png"]
    done = looktwice(*command, "id in ('grey-0.png', 'grey-1.png')", "--report", "d.html")
    assert done.code == 3 and done.out == "" and "No near-duplicates" in done.err and "grey-1.png" in done.err


def test_second_look_at_duplicates(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("duplicates", table, "--rerank", "--json")
    assert done.code == 3 and all(len(record["duplicates"]) == 1 for record in done.records)
    assert all(one["p"] > 0.5 for record in done.records for one in record["duplicates"])
    done = looktwice("duplicates", table, "--rerank", "--min-p", "0.9")
    assert done.code == 0 and "No near-duplicates" in done.err
    done = looktwice("duplicates", table, "--min-p", "0.9")
    assert done.code == 2 and "without --rerank" in done.err
    done = looktwice("duplicates", table, "--min-cosine", "2")
    assert done.code == 2 and "at most 1" in done.err
