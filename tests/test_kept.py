"""What a table keeps beside vectors: what was deleted on purpose, and previews."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder, picture, save_pictures
from indexing_helpers import Collection, made_fixture  # noqa: F401
from PIL import Image

from looktwice import Retriever
from looktwice.errors import StoreError, UsageError
from looktwice.indexing import commit, encode_batches, index
from looktwice.sources import scan
from looktwice.sources.loader import ImageLoader, LoadError
from looktwice.store import Table
from looktwice.testing import BrightnessScorer
from looktwice.token_index.images import image_ref


def test_what_was_deleted_stays_away_until_it_is_restored(made: Collection) -> None:
    save_pictures(made.folder, 6)
    made.index()
    made.table.delete(["0001.png"])
    made.table.delete(where={"id": ["0003.png", "0004.png"]})
    report = made.index()
    assert (report.unchanged, report.added, report.deleted) == (3, 0, 3) and made.index().deleted == 3
    again = Table.open(made.table.path)
    assert again.info()["deleted"] == 3
    report = commit(again, encode_batches(scan([made.folder]), ColourEncoder(), known=again.snapshot()))
    assert (report.added, report.deleted) == (0, 3)
    report = index(again, scan([made.folder]), ColourEncoder(), restore=True)
    assert (report.added, report.deleted, again.info()["deleted"]) == (3, 0, 0)
    assert index(again, scan([made.folder]), ColourEncoder()).unchanged == 6


def test_only_the_item_of_that_place_stays_away(made: Collection, tmp_path: Path) -> None:
    save_pictures(made.folder, 2)
    made.index()
    made.table.delete(["0000.png"])
    save_pictures(tmp_path / "other", 1)
    assert made.index(tmp_path / "other").added == 1, "another folder's file of the same name is another item"
    made.table.delete(["0000.png"])
    made.table.encoder = ColourEncoder()
    report = made.table.upsert([{"id": "0000.png", "image": picture("red")}])
    assert report.failed == 0 and report.inserted == 1, "a program that names the id brings it back"


def test_pruned_items_come_back_with_their_files(made: Collection) -> None:
    save_pictures(made.folder, 3)
    made.index()
    (made.folder / "0001.png").rename(made.folder.parent / "away.png")
    assert made.index(prune=True).pruned == 1
    (made.folder.parent / "away.png").rename(made.folder / "0001.png")
    report = made.index()
    assert (report.added, report.deleted) == (1, 0)


def test_a_purge_leaves_no_byte_of_what_was_deleted(made: Collection) -> None:
    made.save(**{"secret-name": "red", "other": "blue"})
    made.table.note_previews(64)
    made.index()
    made.table.delete(["secret-name.png"])
    made.table.compact(purge=True)
    files = [path for path in Path(made.table.path).rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"secret-name" in path.read_bytes()]
    assert made.table.info()["deleted"] == 1 and made.index().deleted == 1
    assert made.table.preview("other.png") is not None


def shown(webp: bytes | None) -> Image.Image:
    assert webp is not None
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    return image


def test_previews_are_small_copies_and_follow_their_items(made: Collection) -> None:
    made.table.note_previews(64)
    (made.folder / "wide.png").write_bytes(picture((200, 30, 30), (300, 100)))
    made.save(small="blue")
    made.index()
    assert shown(made.table.preview("wide.png")).size == (64, 21) and shown(made.table.preview("small.png")).size == (
        8,
        8,
    )
    assert np.allclose(np.asarray(shown(made.table.preview("wide.png"))).mean((0, 1)), (200, 30, 30), atol=4)
    assert made.table.preview("nobody.png") is None
    facts = made.table.info()
    assert facts["previews"] == {"side": 64, "count": 2} and facts["bytes"]["previews"] > 0
    assert sum(facts["bytes"].values()) == 2 * facts["bytes"]["total"]
    (made.folder / "wide.png").write_bytes(picture((0, 200, 0), (300, 100)))
    made.index()
    assert np.asarray(shown(made.table.snapshot().preview("wide.png"))).mean((0, 1))[1] > 150
    made.table.delete(["wide.png"])
    assert made.table.preview("wide.png") is None and made.table.info()["previews"]["count"] == 1


def test_previews_come_and_go_with_the_setting(made: Collection) -> None:
    save_pictures(made.folder, 3)
    made.index()
    assert made.table.preview("0000.png") is None and not (Path(made.table.path) / "previews.lance").exists()
    made.table.note_previews(32)
    report = made.index()
    assert report.unchanged == 3 and report.encoded == 0 and made.table.info()["previews"]["count"] == 3
    versions = made.table._extras["previews"].version
    assert made.index().unchanged == 3 and made.table._extras["previews"].version == versions
    made.table.note_previews(0)
    (made.folder / "0000.png").write_bytes(picture("red"))
    save_pictures(made.folder, 1, start=9)
    assert made.index().updated == 1
    assert made.table.preview("0000.png") is None, "never that of other bytes"
    assert made.table.preview("0001.png") is not None and made.table.preview("0009.png") is None
    for side in (-1, 1, 15, 5000):
        with pytest.raises(UsageError, match="16 to 4,096"):
            made.table.note_previews(side)


def test_an_unfinished_or_foreign_table_of_previews(made: Collection, tmp_path: Path) -> None:
    made.table.note_previews(32)
    (Path(made.table.path) / "previews.lance" / "data").mkdir(parents=True)  # killed while it was made
    table = Table.open(made.table.path)
    made.save(a="red")
    assert index(table, scan([made.folder]), ColourEncoder()).added == 1 and table.preview("a.png") is not None
    shutil.move(Path(table.path) / "previews.lance", tmp_path / "moved")
    os.symlink(tmp_path / "moved", Path(table.path) / "previews.lance")
    with pytest.raises(Exception, match="is a link"):
        Table.open(table.path)


def test_the_second_look_sees_the_preview_of_what_is_gone(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    table = Table.open_or_create(tmp_path / "t.lt", encoder)
    path = tmp_path / "red.png"
    path.write_bytes(picture("red", (600, 600)))
    table.upsert([{"id": "file", "image": path}, {"id": "memory", "image": Image.new("RGB", (900, 600), "blue")}])
    path.unlink()
    scorer = BrightnessScorer()
    answer = Retriever(table, encoder, scorer).search(Image.new("RGB", (8, 8), "red"))
    assert [hit.status for hit in answer.hits] == ["ok", "ok"] and answer.stats.previewed == {"file", "memory"}
    assert {(hit.explain or {})["image"] for hit in answer.hits} == {"preview"}
    assert answer.manifest["candidates"]["previews"] == 2
    table._extras["previews"].update(where="id = 'file'", values={"webp": b"damaged"})
    answer = Retriever(table, encoder, scorer).search(Image.new("RGB", (8, 8), "red"))
    assert {hit.id: hit.status for hit in answer.hits} == {"file": "missing", "memory": "ok"}
    assert answer.hits[0].id == "file" and answer.stats.unreadable["file"].reason == "missing"


def test_tokens_of_what_lived_in_memory_come_from_its_preview(tmp_path: Path) -> None:
    table = Table.open_or_create(tmp_path / "t.lt", ColourEncoder(), previews=64)
    (tmp_path / "a.png").write_bytes(picture("red", (90, 60)))
    table.upsert([{"id": "file", "image": tmp_path / "a.png"}, {"id": "memory", "image": picture("blue", (90, 60))}])
    rows = {row["id"]: row for row in table.rows(["id", "uri", "sha256"])}
    entries = [image_ref(table, rows[name], "refused") for name in ("file", "memory")]
    (found,) = ImageLoader().load(entries)
    assert [item.image.size for item in found] == [(90, 60), (64, 43)]
    (tmp_path / "a.png").unlink()
    (gone,) = ImageLoader().load(entries[:1])
    assert isinstance(gone[0], LoadError), "tokens of a file wait for the file"


def test_a_crash_between_preview_and_row_leaves_nothing_wrong(
    made: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.table.note_previews(64)
    made.save(a="red")
    made.index()
    made.save(a="blue", b="green")

    def fail(self: Table, rows: object) -> None:
        raise StoreError("the power went")

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="the power went"):
        patch.setattr(Table, "add", fail)
        made.index()
    table = Table.open(made.table.path)
    assert table.preview("a.png") is None, "the new preview is of other bytes than the row's"
    assert table.preview("b.png") is None and len(table) == 1
    assert made.index().met == 2
    assert np.asarray(shown(made.table.preview("a.png"))).mean((0, 1))[2] > 200
    assert shown(made.table.preview("b.png")).size == (8, 8)
