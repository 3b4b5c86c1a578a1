"""Items from memory: inserted, updated, left alone or listed as failed; nothing is encoded twice or in vain."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_encoder import ColourEncoder, picture
from PIL import Image

import looktwice
from looktwice.errors import Locked, Mismatch, UnknownName, UsageError
from looktwice.indexing import index
from looktwice.sources import scan
from looktwice.store import Table


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def table(tmp_path: Path, encoder: ColourEncoder) -> Table:
    return Table.open_or_create(tmp_path / "shop.lt", encoder)


def counts(report: Any) -> tuple[int, ...]:
    return report.inserted, report.updated, report.metadata_only, report.unchanged, report.failed


def red() -> Image.Image:
    return Image.new("RGB", (8, 8), "red")


def shoe(**more: Any) -> dict[str, Any]:
    return {"id": "sku-1", "image": red(), "text": "shoe", "metadata": {"price": 19.5, "category": "shoes"}, **more}


def test_insert_unchanged_metadata_text_and_image(table: Table, encoder: ColourEncoder) -> None:
    assert counts(table.upsert([shoe()])) == (1, 0, 0, 0, 0) and encoder.encoded == 1
    assert counts(table.upsert([shoe()])) == (0, 0, 0, 1, 0) and encoder.encoded == 1
    report = table.upsert([shoe(metadata={"price": 5})])
    assert counts(report) == (0, 1, 1, 0, 0) and report.encoded == 0 and encoder.encoded == 1
    (row,) = table.get(["sku-1"])
    assert (row.metadata, row.text, row.uri, row.width) == ({"price": 5}, "shoe", "memory:sku-1", 8)
    assert table.count({"price": 5}) == table.count({"category": None}) == 1
    report = table.upsert([shoe(text="hat", metadata={"price": 5})])
    assert counts(report) == (0, 1, 0, 0, 0) and report.encoded == 1
    before = table.get(["sku-1"])[0].vector
    assert table.upsert([shoe(text="hat", image=Image.new("RGB", (8, 8), "blue"))]).updated == 1
    assert not np.allclose(table.get(["sku-1"])[0].vector, before)


def test_what_is_not_given_stays(table: Table, encoder: ColourEncoder) -> None:
    table.upsert([shoe()])
    report = table.upsert([{"id": "sku-1", "metadata": {"price": 7.5, "new": True}}])
    assert counts(report) == (0, 1, 1, 0, 0) and encoder.encoded == 1 and report.columns == ("new",)
    assert counts(table.upsert([{"id": "sku-1", "metadata": {"new": True, "price": 7.5}}])) == (0, 0, 0, 1, 0)
    assert counts(table.upsert([{"id": "sku-1"}])) == (0, 0, 0, 1, 0)
    assert counts(table.upsert([{"id": "sku-1", "image": red()}])) == (0, 0, 0, 1, 0)
    (row,) = table.get(["sku-1"])
    assert row.text == "shoe" and row.metadata == {"price": 7.5, "new": True}
    assert counts(table.upsert([{"id": "sku-1", "image": red(), "text": None}])) == (0, 1, 0, 0, 0)
    assert table.get(["sku-1"])[0].text is None
    report = table.upsert([{"id": "sku-1", "text": "words"}])
    assert report.failures[0].reason == "missing" and "pass the image" in report.failures[0].detail
    assert table.get(["sku-1"])[0].text is None


def test_new_words_for_an_image_that_has_a_place(table: Table, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("red"))
    assert table.upsert([{"id": 7, "image": tmp_path / "a.png"}]).inserted == 1
    assert counts(table.upsert([{"id": "7", "text": "zoo"}])) == (0, 1, 0, 0, 0)
    (row,) = table.get(["7"])
    assert (row.uri, row.root, row.text) == ((tmp_path / "a.png").as_uri(), "", "zoo")
    assert row.vector[0] > 0 and row.vector[15] > 0, "image and text"
    (tmp_path / "a.png").unlink()
    assert table.upsert([{"id": "7", "text": "hat"}]).failures[0].reason == "missing"
    assert [entry.item_id for entry in table.ledger] == ["7"]
    assert table.upsert([{"id": "7", "image": red(), "text": "hat"}]).updated == 1
    assert len(table.ledger) == 0, "a success takes every line of the item along"


FORMS = {
    "path": lambda folder: str(folder / "a.png"),
    "Path": lambda folder: folder / "a.png",
    "bytes path": lambda folder: memoryview((folder / "a.png").read_bytes()),
    "bytes": lambda folder: (folder / "a.png").read_bytes(),
    "bytearray": lambda folder: bytearray((folder / "a.png").read_bytes()),
    "BytesIO": lambda folder: io.BytesIO((folder / "a.png").read_bytes()),
    "file": lambda folder: (folder / "a.png").open("rb"),
    "data URI": lambda folder: "data:image/png;base64," + base64.b64encode((folder / "a.png").read_bytes()).decode(),
    "PIL": lambda folder: Image.open(folder / "a.png"),
    "RGBA": lambda folder: Image.open(folder / "a.png").convert("RGBA"),
    "uint8": lambda folder: np.asarray(Image.open(folder / "a.png")),
    "with alpha": lambda folder: np.asarray(Image.open(folder / "a.png").convert("RGBA")),
    "floats": lambda folder: np.asarray(Image.open(folder / "a.png")) / 255,
    "float32": lambda folder: (np.asarray(Image.open(folder / "a.png")) / 255).astype(np.float32)[:, ::1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_gives_the_same_vector_twice(table: Table, tmp_path: Path, form: str) -> None:
    (tmp_path / "a.png").write_bytes(picture((250, 100, 5)))
    made = FORMS[form](tmp_path)
    assert counts(table.upsert([{"id": "a", "image": made}])) == (1, 0, 0, 0, 0)
    assert counts(table.upsert([{"id": "a", "image": made}])) == (0, 0, 0, 1, 0)
    (row,) = table.get(["a"])
    expected = ColourEncoder().encode([looktwice.Item("x", Image.new("RGB", (8, 8), (250, 100, 5)))])[0]
    assert np.allclose(row.vector, expected, atol=1e-3) and (row.width, row.height) == (8, 8)


def test_grey_arrays(table: Table) -> None:
    array = np.full((4, 6), 128, np.uint8)
    assert table.upsert([{"id": "a", "image": array}, {"id": "b", "image": array / 255}]).inserted == 2
    assert [(row.width, row.height) for row in table.get(["a", "b"])] == [(6, 4), (6, 4)]


BAD: list[tuple[Any, str, str]] = [
    ("no dict", "bad-record", "an item is a dict"),
    ({}, "bad-record", '"id" must be'),
    ({"id": ""}, "bad-record", '"id" must be'),
    ({"id": 1.5, "text": "a"}, "bad-record", '"id" must be'),
    ({"id": True, "text": "a"}, "bad-record", '"id" must be'),
    ({"id": "\ud800", "text": "a"}, "bad-record", '"id" must be'),
    ({"id": "x"}, "bad-record", "neither image nor text"),
    ({"id": "x", "text": " \n"}, "bad-record", "neither image nor text"),
    ({"id": "x", "text": 5}, "bad-record", '"text" must be'),
    ({"id": "x", "text": "\udcff"}, "bad-record", "lone surrogate"),
    ({"id": "x", "text": "a", "price": 5}, "bad-record", "put further values into metadata"),
    ({"id": "x", "text": "a", "metadata": [1]}, "bad-record", '"metadata" must be'),
    ({"id": "x", "text": "a", "metadata": {"p": float("nan")}}, "bad-record", "plain JSON"),
    ({"id": "x", "text": "a", "metadata": {"p": {1, 2}}}, "bad-record", "plain JSON"),
    ({"id": "x", "text": "a", "metadata": {"p": np.zeros(3)}}, "bad-record", "plain JSON"),
    ({"id": "x", "image": 5}, "bad-record", '"image" is int'),
    ({"id": "x", "image": ""}, "bad-record", "path of its image"),
    ({"id": "x", "image": "a\0b"}, "bad-record", "path of its image"),
    ({"id": "x", "image": "nowhere.png"}, "missing", "nowhere.png: the file does not exist"),
    ({"id": "x", "image": "http://a.example/b.png"}, "url-refused", "is a URL; fetch it and pass its bytes"),
    ({"id": "x", "image": b""}, "empty", "no bytes"),
    ({"id": "x", "image": b"words"}, "not-an-image", "it is text"),
    ({"id": "x", "image": picture("red")[:-30]}, "truncated", ""),
    ({"id": "x", "image": "data:image/png;base64,iVBORw0KGgo"}, "bad-record", "is cut or not base64"),
    ({"id": "x", "image": "data:image/png;base64,iVBORw0KGgoA"}, "truncated", ""),
    ({"id": "x", "image": "data:image/png"}, "bad-record", "its data URI is not"),
    ({"id": "x", "image": io.StringIO("words")}, "bad-record", "open for text"),
    ({"id": "x", "image": np.zeros((0, 5), np.uint8)}, "empty", "no pixels"),
    ({"id": "x", "image": np.zeros((5, 5, 2), np.uint8)}, "bad-record", "is not an image"),
    ({"id": "x", "image": np.zeros(5, np.uint8)}, "bad-record", "is not an image"),
    ({"id": "x", "image": np.zeros((5, 5), np.int32)}, "bad-record", "is not an image"),
    ({"id": "x", "image": np.zeros((5, 5), bool)}, "bad-record", "is not an image"),
    ({"id": "x", "image": np.full((5, 5), np.nan)}, "bad-record", "or NaN"),
    ({"id": "x", "image": np.full((5, 5), 255.0)}, "bad-record", "outside 0 to 1"),
    ({"id": "x", "image": np.zeros((5, 5), object)}, "bad-record", "is not an image"),
    ({"id": "x", "image": np.zeros((1, 9999), np.uint8)}, "too-long", ""),
    ({"id": "x", "image": Image.new("RGB", (0, 5))}, "empty", ""),
    ({"id": "x", "image": Image.new("RGB", (5, 5))}, "no-direction", ""),
]


def test_a_bad_item_is_listed_and_the_others_are_written(table: Table) -> None:
    items: list[Any] = []
    for number, (bad, _, _) in enumerate(BAD):
        named = {**bad, "id": f"bad-{number}"} if isinstance(bad, dict) and bad.get("id") == "x" else bad
        items += [{"id": f"good-{number}", "image": picture((number + 1, 9, 9))}, named]
    report = table.upsert(items)
    assert report.inserted == len(BAD) and report.failed == len(BAD) == len(report.failures)
    assert sorted(table.hashes()) == sorted(f"good-{number}" for number in range(len(BAD)))
    named_failures = {failure.id: failure for failure in report.failures if failure.id.startswith("bad-")}
    for number, (bad, reason, detail) in enumerate(BAD):
        found = named_failures.get(f"bad-{number}")
        if found is not None:
            assert found.reason == reason and detail in found.detail, (bad, found)
    nameless = [failure for failure in report.failures if not failure.id]
    assert all(failure.detail.startswith("item ") for failure in nameless) and len(nameless) == 6
    vectors = {row.id: row.vector for row in table.get(sorted(table.hashes()))}
    for number in range(len(BAD)):
        expected = ColourEncoder().encode([looktwice.Item("x", Image.new("RGB", (8, 8), (number + 1, 9, 9)))])[0]
        assert np.allclose(vectors[f"good-{number}"], expected, atol=1e-3), "nothing is shifted"


def test_ids_may_be_numbers_and_hold_anything_else(table: Table) -> None:
    ids = [5, "a\nb", "it's", "ü #%", "x" * 500]
    assert table.upsert([{"id": one, "text": f"a{n}"} for n, one in enumerate(ids)]).inserted == 5
    assert sorted(table.hashes()) == sorted(map(str, ids))
    assert table.delete(where={"id": ["a\nb", "it's"]}) == 2


def test_the_same_id_twice_in_one_call(table: Table) -> None:
    report = table.upsert([{"id": "a", "text": "abc"}, {"id": "a", "text": "xyz"}, {"id": "b", "text": "abc"}])
    assert counts(report) == (2, 0, 0, 0, 1) and "occurs twice" in report.failures[0].detail
    assert table.get(["a"])[0].text == "abc"


def test_new_keys_become_columns_and_misfits_are_counted(table: Table) -> None:
    first = {"price": 5, "name": "x", "sold": False, "tags": ["a"], "none": None, "a b": 1, "id": 3, "Price": 4}
    report = table.upsert([{"id": "a", "text": "a", "metadata": first}])
    assert report.columns == ("price", "name", "sold") and table.columns == {"price": float, "name": str, "sold": bool}
    report = table.upsert([{"id": "b", "text": "b", "metadata": {"price": "cheap", "none": 1.5}}])
    assert report.unfit == {"price": 1} and report.columns == ("none",) and report.failed == 0
    assert table.get(["b"])[0].metadata == {"price": "cheap", "none": 1.5}
    assert table.count({"price": {"<": 9}}) == 1 and table.count({"none": 1.5}) == 1


def test_metadata_may_hold_numpy_numbers_and_dates(table: Table) -> None:
    when = datetime(2024, 6, 30, 12, 34, 56)
    for _ in range(2):
        odd = {"price": np.float32(2.5), "stock": np.int64(3), "sold": np.bool_(False), "day": when.date(), "at": when}
        report = table.upsert([{"id": "x", "text": "red", "metadata": {**odd, "np": np.datetime64(when)}}])
        assert report.failed == 0
    assert report.unchanged == 1
    kept = table.get(["x"])[0].metadata
    assert kept["price"] == 2.5 and kept["stock"] == 3 and kept["sold"] is False
    assert (kept["day"], kept["at"], kept["np"]) == ("2024-06-30", "2024-06-30T12:34:56", "2024-06-30T12:34:56")
    assert table.count({"day": {">": "2024-06"}, "stock": 3}) == 1


def test_the_same_bytes_are_encoded_once(table: Table, encoder: ColourEncoder) -> None:
    report = table.upsert({"id": str(n), "image": picture("green")} for n in range(300))
    assert (report.inserted, report.encoded) == (300, 1)
    assert table.upsert([{"id": "later", "image": picture("green")}]).encoded == 0 and encoder.encoded == 1


def test_a_list_updates_what_another_wrote(table: Table, encoder: ColourEncoder, tmp_path: Path) -> None:
    table.upsert([shoe()])
    for name, text in (("one", "abc"), ("two", "xyz"), ("one", "abc")):
        listed = tmp_path / f"{name}.jsonl"
        listed.write_text(json.dumps({"id": "sku-1", "text": text}) + "\n")
        report = index(table, scan([listed]), encoder)
        assert (report.updated, report.failed, len(table)) == (1, 0, 1)
        assert table.get(["sku-1"])[0].text == text and index(table, scan([listed]), encoder).unchanged == 1
    assert table.upsert([shoe()]).updated == 1


def test_a_folder_keeps_items_and_takes_metadata(table: Table, encoder: ColourEncoder, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(picture("red"))
    index(table, scan([tmp_path / "f"]), encoder)
    report = table.upsert([{"id": "a.png", "image": picture("blue")}])
    assert report.failures[0].reason == "duplicate-id" and len(table) == 1
    assert table.upsert([{"id": "a.png", "metadata": {"stars": 5}}]).metadata_only == 1
    assert index(table, scan([tmp_path / "f"]), encoder).unchanged == 1
    (tmp_path / "f" / "a.png").write_bytes(picture("green"))
    assert index(table, scan([tmp_path / "f"]), encoder).updated == 1
    assert table.get(["a.png"])[0].metadata == {"stars": 5} and table.count({"stars": 5}) == 1


def test_open_or_create(tmp_path: Path, encoder: ColourEncoder) -> None:
    first = Table.open_or_create(tmp_path / "t.lt", encoder, columns={"year": int})
    again = Table.open_or_create(tmp_path / "t.lt", encoder, columns={"year": int, "shop": str})
    assert first.manifest.encoder == again.manifest.encoder and again.columns == {"year": int, "shop": str}
    with pytest.raises(UsageError, match="exists already, with the type int"):
        Table.open_or_create(tmp_path / "t.lt", encoder, columns={"year": str})
    with pytest.raises(Mismatch, match="revision"):
        Table.open_or_create(tmp_path / "t.lt", ColourEncoder("2"))
    with pytest.raises(Mismatch, match="tiny-clip"):
        Table.open_or_create(tmp_path / "t.lt", "tiny-clip")
    with pytest.raises(UnknownName):
        Table.open_or_create(tmp_path / "new.lt", "tiny-clap")
    assert not (tmp_path / "new.lt").exists()


def test_wrong_calls_are_refused(table: Table) -> None:
    with pytest.raises(UsageError, match="must be a list of dicts"):
        table.upsert(shoe())
    with pytest.raises(UsageError, match="must be a list"):
        table.upsert("sku-1")  # type: ignore[arg-type]
    with table.writer(), pytest.raises(Locked):
        Table.open_or_create(table.path, ColourEncoder()).upsert([shoe()])
    assert counts(table.upsert([])) == (0, 0, 0, 0, 0)


KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from colour_encoder import ColourEncoder, picture
from looktwice.indexing import writer
from looktwice.store import Table
writer.COMMIT_ROWS = 64
def items():
    for n in range(1000):
        if n == 700:
            os.kill(os.getpid(), 9)
        key = "late" if n > 600 else "early"
        yield {{"id": f"{{n:04}}", "image": picture((n % 251 + 1, n // 251, 9)), "metadata": {{"n": n, key: n}}}}
Table.open_or_create({path!r}, ColourEncoder()).upsert(items())
"""


def test_kill_9_leaves_a_whole_table_and_the_same_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t.lt"
    code = KILLED.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    table = Table.open_or_create(path, encoder := ColourEncoder())
    there = len(table)
    assert 0 < there < 700
    report = table.upsert(
        {"id": f"{n:04}", "image": picture((n % 251 + 1, n // 251, 9)), "metadata": {"n": n}} for n in range(1000)
    )
    assert report.inserted == 1000 - there and report.failed == 0 and len(table) == 1000
    assert encoder.encoded == 1000 - there and table.count("n >= 0") == 1000


def test_the_first_lines_of_the_shop_guide_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "guides" / "shop.md").read_text(encoding="utf-8")
    snippet = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    red().resize((64, 64)).save("query.jpg")
    for inserted in (1, 0):
        names: dict[str, Any] = {}
        exec(compile(snippet, "shop.md", "exec"), names)
        report, (hit,) = names["report"], names["hits"]
        assert (report.inserted, report.unchanged, report.encoded) == (inserted, 1 - inserted, inserted)
        assert (hit.metadata, hit.text) == ({"price": 19.5, "category": "shoes"}, "red shoe")
        assert (hit.id, hit.uri) == ("sku-1", "memory:sku-1")
        assert names["table"].count({"price": {"<": 19}}) == 0


def test_a_retriever_sees_what_others_write(table: Table, encoder: ColourEncoder) -> None:
    table.upsert([{"id": "a", "image": picture("red")}])
    retriever, held = looktwice.Retriever(table, encoder), looktwice.Retriever(table.snapshot(), encoder)
    assert [hit.id for hit in retriever.search(red(), rerank=False).hits] == ["a"]
    Table.open_or_create(table.path, ColourEncoder()).upsert(
        [{"id": "b", "image": picture("red"), "metadata": {"x": 1}}]
    )
    answer = retriever.search(red(), rerank=False)
    assert [hit.id for hit in answer.hits] == ["a", "b"] and answer.hits[1].metadata == {"x": 1}
    assert [hit.id for hit in retriever.search(red(), rerank=False, where={"x": 1}).hits] == ["b"]
    Table.open(table.path).delete(["a"])
    assert [hit.id for hit in retriever.search(red(), rerank=False).hits] == ["b"]
    assert [hit.id for hit in held.search(red(), rerank=False).hits] == ["a"]
