"""index, info, ledger, delete, compact, export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from conftest import Looktwice
from PIL import Image
from typer.testing import CliRunner

from looktwice.cli.main import app


def test_index_twice_then_change_remove_and_prune(looktwice: Looktwice, pictures: Path) -> None:
    first = looktwice("index", "t.lt", pictures, "--json")
    assert first.code == 0 and len(first.records) == 1
    assert (first.records[0]["added"], first.records[0]["items"], first.records[0]["failed"]) == (12, 12, 0)
    assert first.records[0]["bytes_per_item"] > 0

    Image.new("RGB", (5, 5), (9, 9, 9)).save(pictures / "red-0.png")
    (pictures / "red-1.png").unlink()
    again = looktwice("index", "t.lt", pictures)
    assert again.code == 0
    assert "1 updated, 10 unchanged" in again.out
    assert "1 item of the table has lost its file" in again.err
    pruned = looktwice("index", "t.lt", pictures, "--prune", "--json").records[0]
    assert (pruned["pruned"], pruned["items"]) == (1, 11)
    for image in Path(pictures).iterdir():
        image.unlink()
    empty = looktwice("index", "t.lt", pictures, "--prune")
    assert "11 items of the table have lost their files." in empty.err and "Not pruned" in empty.err


def test_what_may_still_be_in_a_list_that_cannot_be_read_is_said(looktwice: Looktwice, tmp_path: Path) -> None:
    lines = [json.dumps({"id": name, "text": name}) for name in ("red", "green", "blue")]
    listed = tmp_path / "l.jsonl"
    listed.write_text("\n".join(lines))
    assert looktwice("index", "t.lt", listed).code == 0
    listed.write_text("\n".join([lines[0], "bad"]))
    done = looktwice("index", "t.lt", listed, "--prune")
    said = f"Not pruned: 2 items of {listed} may be in its unreadable part; repair it first (looktwice"
    assert done.code == 3 and said in done.err
    assert "Not pruned" not in looktwice("index", "t.lt", listed).err
    assert looktwice("index", "t.lt", listed, "--prune", "--json").records[0]["unseen"] == {str(listed): 2}
    listed.write_text(lines[0])
    done = looktwice("index", "t.lt", listed, "--prune")
    assert "2 pruned" in done.out and "Not pruned" not in done.err


def test_bad_files_go_to_the_ledger_and_give_exit_code_3(looktwice: Looktwice, pictures: Path) -> None:
    (pictures / "é f.jpg").write_bytes(b"")
    (pictures / "text.jpg").write_text("not a picture")
    (pictures / "a\x1b[31mb\n.png").write_bytes((pictures / "red-0.png").read_bytes()[:30])
    done = looktwice("index", "t.lt", pictures)
    assert done.code == 3
    assert "3 failed" in done.err and "looktwice ledger t.lt" in done.err
    listed = looktwice("ledger", "t.lt", "--json")
    assert listed.code == 0
    assert {entry["reason"] for entry in listed.records} == {"empty", "not-an-image", "truncated"}
    assert {entry["id"] for entry in listed.records} == {"é f.jpg", "text.jpg", "a\x1b[31mb\n.png"}
    assert len(looktwice("ledger", "t.lt", "--json", "--reason", "empty").records) == 1
    shown = looktwice("ledger", "t.lt")
    assert "\x1b" not in shown.out and "empty" in shown.out
    assert f"{pictures}/é f.jpg" in shown.out and "file:" not in shown.out
    assert f"file://{pictures}/%C3%A9%20f.jpg" in {entry["uri"] for entry in listed.records}
    unknown = looktwice("ledger", "t.lt", "--reason", "emty")
    assert unknown.code == 2 and "did you mean empty" in unknown.err

    facts = looktwice("info", "t.lt", "--json").records[0]
    assert (facts["items"], facts["failed"], facts["format"]) == (12, 3, 2)
    assert facts["bytes_per_item"]["total"] > 0


def test_max_failures_stops(looktwice: Looktwice, pictures: Path) -> None:
    for i in range(5):
        (pictures / f"a{i}.jpg").write_bytes(b"")
    done = looktwice("index", "t.lt", pictures, "--max-failures", "2")
    assert done.code == 3 and "more than the 2 that max_failures (--max-failures) allows" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "t.lt", "nowhere"], "nowhere"),
        (["index", "t.lt", ""], "A path is empty"),
        (["index", "t.lt", "pictures", "--column", "year:integer"], "did you mean int"),
        (["index", "t.lt", "pictures", "--column", "year:int"], "has other columns"),
        (["index", "n.lt", "pictures", "--column", "year:int", "--column", "year:float"], "'year' is declared twice"),
        (["index", "t.lt", "pictures", "--mllm", "tiny-vl", "--codec", "pq0"], "pq0"),
        (["index", "pictures", "pictures"], "contains other files"),
        (["info", "nowhere.lt"], "does not exist"),
        (["info", "pictures"], "not a looktwice table"),
        (["delete", "t.lt"], "either ids or --where"),
        (["delete", "t.lt", "red-0.png", "--where", "id = 'x'"], "exactly one of them"),
        (["delete", "t.lt", "--where", "colour = 'red'"], "KEY:TYPE"),
        (["delete", "t.lt", "--where", "((("], "filter"),
        (
            ["delete", "t.lt", "--yes", "--where", "true) AND_ONLY id = 'zzz'"],
            "the ) at character 5 has no opening bracket",
        ),
        (["search", "t.lt", "red", "--where", "true) -- "], "the ) at character 5 has no opening bracket"),
        (["delete", "t.lt", "--yes", "--where", "1=1" + "-1" * 30_000], "at most 250 are allowed"),
        (["delete", "t.lt", "--where", "true"], "all 12 items of t.lt ("),
        (["export", "t.lt", "pictures"], "not empty"),
        (["ledger", "t.lt", "--json", "extra"], "extra"),
        (["indx"], "index"),
    ],
)
def test_what_is_refused_says_so_in_a_sentence(
    looktwice: Looktwice, table: Path, arguments: list[str], message: str
) -> None:
    done = looktwice(*arguments)
    assert done.code == 2, done
    assert message in done.err and "Traceback" not in done.err
    assert done.out == ""


def test_empty_folder_is_said_plainly(looktwice: Looktwice, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = looktwice("index", "t.lt", "nothing")
    assert done.code == 0 and "no readable image was found" in done.err
    assert "0 items; encoder" in done.out, "nothing to divide the bytes by"
    found = looktwice("search", "t.lt", "red")
    assert found.code == 0 and "is empty" in found.err


def test_photos_of_a_kind_that_is_not_read_are_named(looktwice: Looktwice, tmp_path: Path) -> None:
    for name in ("phone/1.PSD", "phone/2.psd", "phone/more/3.Psd", "phone/notes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for _ in range(2):  # a second time, with the table's own files in the folder
        done = looktwice("index", "phone/t.lt", "phone")
        assert "4 files of other kinds were skipped (.psd 3, without a suffix 1);" in done.err
        assert ".jpg" in done.err and ".tar" in done.err and "convert" in done.err
    assert looktwice("index", "phone/t.lt", "phone", "--json").records[0]["ignored"] == {".psd": 3, "": 1}


def test_what_stands_beside_photos_is_not_called_an_image(looktwice: Looktwice, pictures: Path) -> None:
    for name in ("a.AAE", "b.aae", "c.xmp", "Thumbs.db", "scan.psd"):
        (pictures / name).write_bytes(b"x")
    done = looktwice("index", "t.lt", pictures)
    assert "4 files that hold no image were passed over (.aae 2, .db 1, .xmp 1)." in done.err
    assert "1 file of another kind was skipped (.psd 1); rename or convert images" in done.err


def test_json_counts_items_by_the_suffix_of_their_file(looktwice: Looktwice, pictures: Path) -> None:
    (pictures / "red-0.png").rename(pictures / "red-0.HEIC")
    (pictures / "bad.jpg").write_bytes(b"")
    (pictures / "list.jsonl").write_text('{"id": "text", "text": "red"}\n{"id": "red", "image": "red-1.png"}\n')
    for counted in ("added", "unchanged"):
        done = looktwice("index", "t.lt", pictures, pictures / "list.jsonl", "--json").records[0]
        assert done["formats"] == {".heic": 1, ".png": 12, ".jsonl": 1} and done[counted] == 14


def test_a_table_that_is_still_empty_is_filled_by_the_same_command(looktwice: Looktwice, pictures: Path) -> None:
    """As after a kill before the first batch: the table is there, and nothing is in it."""
    nothing = pictures.parent / "nothing"
    nothing.mkdir()
    assert looktwice("index", "t.lt", nothing).code == 0
    done = looktwice("index", "t.lt", pictures)
    assert done.code == 0 and "12 added" in done.out


def test_a_whole_table_goes_only_after_a_yes(
    looktwice: Looktwice, own_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = looktwice("delete", own_table, "--where", "true")
    assert refused.code == 2 and "This would delete all 12 items" in refused.err and "pass --yes" in refused.err
    monkeypatch.setattr("looktwice.cli.delete.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    arguments = ["delete", str(own_table), "--where", "true", "--json"]
    no = CliRunner().invoke(app, arguments, input="n\n")
    assert no.exit_code == 2 and "{" not in no.stdout and "because you answered no" in no.stderr
    assert looktwice("info", own_table, "--json").records[0]["items"] == 12
    sure = CliRunner().invoke(app, arguments, input="y\n")
    assert sure.exit_code == 0 and json.loads(sure.stdout.splitlines()[-1]) == {"deleted": 12, "unknown": 0, "items": 0}
    assert looktwice("delete", own_table, "--where", "true").code == 0  # nothing is left to ask about


def test_more_than_1000_items_go_only_with_yes(
    looktwice: Looktwice, own_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looktwice.cli.delete.MANY", 5)
    names = [f"{colour}-{n}.png" for colour in ("red", "blue") for n in range(3)]
    for items in (names, ["--where", "id NOT LIKE 'gr%'"]):
        refused = looktwice("delete", own_table, *items)
        assert refused.code == 2 and "This would delete 6 items of t.lt (" in refused.err
    assert looktwice("delete", own_table, *names[:5]).code == 0
    assert looktwice("delete", own_table, "--yes", "--where", "true", "--json").records[0]["deleted"] == 7


def test_delete_by_id_and_filter_then_purge(looktwice: Looktwice, own_table: Path) -> None:
    strange = 'it\'s "red"\n.png'
    Image.new("RGB", (8, 8), (250, 9, 9)).save(Path("pictures") / strange)
    assert looktwice("index", own_table, "pictures").code == 0
    assert looktwice("delete", own_table, strange, "red-0.png", "--json").records == [
        {"deleted": 2, "unknown": 0, "items": 11}
    ]
    gone = looktwice("delete", own_table, "--where", "id LIKE 'blue-%'", "--json").records[0]
    assert gone == {"deleted": 3, "unknown": 0, "items": 8}
    unknown = looktwice("delete", own_table, "nothing-like-it", "--json")
    assert (unknown.code, unknown.records[0]["deleted"], unknown.records[0]["unknown"]) == (3, 0, 1)
    assert "1 id is not in the table" in unknown.err
    purged = looktwice("compact", own_table, "--purge", "--json").records[0]
    assert purged["bytes_after"] < purged["bytes_before"] and purged["items"] == 8


def test_metadata_columns_and_filters_from_a_list(looktwice: Looktwice, pictures: Path, tmp_path: Path) -> None:
    lines = [
        {"id": "a'b", "image": "pictures/red-0.png", "metadata": {"year": 2021, "shop": "O'Hara"}},
        {"id": "猫", "image": "pictures/red-1.png", "metadata": {"year": 1999}},
        {"id": "words", "text": "something green"},
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = ["--column", "year:int", "--column", "shop"]
    assert looktwice("index", "t.lt", "list.jsonl", *columns).code == 0
    recent = looktwice("search", "t.lt", "red", "--where", "year > 2020", "--json", "--no-rerank").records
    assert [hit["id"] for hit in recent] == ["a'b"]
    quoted = looktwice("search", "t.lt", "red", "--where", "shop = 'O''Hara'", "--json", "--no-rerank").records
    assert [hit["id"] for hit in quoted] == ["a'b"]
    everything = looktwice("search", "t.lt", "red", "--json", "--no-rerank")
    assert {hit["id"] for hit in everything.records} == {"a'b", "猫", "words"}
    assert "猫" in everything.out


def test_export_holds_everything(looktwice: Looktwice, table: Path) -> None:
    done = looktwice("export", table, "out")
    assert done.code == 0 and done.out.strip() == "out/items.parquet"
    rows = pq.read_table("out/items.parquet").to_pylist()
    assert {row["id"] for row in rows} >= {"red-0.png", "grey-2.png"} and len(rows) == 12
    assert all(len(row["vector"]) == 8 for row in rows)
    done = looktwice("export", table, "new/photos.parquet")
    assert done.code == 0 and done.out.strip() == "new/photos.parquet"
    assert pq.read_table("new/photos.parquet").num_rows == 12 and len(list(Path("new").iterdir())) == 1
    assert "already exists" in looktwice("export", table, "new/photos.parquet").err
    assert "exists already" in looktwice("export", table, "new").err
    assert "already exists" in looktwice("export", table, "pictures/red-0.png").err
    Path("killed").mkdir()
    Path("killed/items.parquet.tmp").write_bytes(b"PAR1")
    assert looktwice("export", table, "killed", "--json").records == [{"items": 12, "files": ["killed/items.parquet"]}]


def test_a_table_is_found_again_after_its_folder_moved(looktwice: Looktwice, own_table: Path) -> None:
    shutil.move("t.lt", "moved.lt")
    assert looktwice("info", "moved.lt", "--json").records[0]["items"] == 12


@pytest.mark.parametrize("option", ["--codec", "--resolution", "--max-tiles"])
def test_options_of_tokens_need_an_mllm(looktwice: Looktwice, pictures: Path, option: str) -> None:
    done = looktwice("index", "t.lt", pictures, option, "pq16" if option == "--codec" else 2)
    assert done.code == 2 and "--mllm" in done.err and not Path("t.lt").exists()
