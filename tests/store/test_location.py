"""`Location` is a real seam: two implementations keep one contract, and either carries a whole table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_helpers import ENCODER, random_rows, row, token_set

from looktwice.errors import StoreError, UsageError
from looktwice.store import LedgerEntry, LocalFolder, Location, Table, TokenRow
from looktwice.store.location import locate

Maker = Callable[[], Location]


@pytest.fixture(params=["folder", "bucket"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Return a function that locates the same place anew, as another process would."""
    if request.param == "folder":
        return lambda: LocalFolder(tmp_path / "t.lt")
    uri = f"{request.getfixturevalue('s3').uri}/t.lt"
    return lambda: locate(uri)


def test_what_was_written_is_read_listed_measured_and_deleted(make: Maker) -> None:
    location = make()
    assert not location.exists() and location.list() == [] and location.size() == 0
    location.prepare()
    location.prepare()
    assert location.exists() is isinstance(location, LocalFolder) and location.list() == []
    for data in (b"one", b"", b"two and more"):
        location.write_whole("manifest.json", data)
        assert location.read_bytes("manifest.json", 12) == data
    location.write_whole("codebooks/a", b"12345")
    location.write_whole("codebooks/b", b"1")
    location.check("codebooks")
    assert location.list() == ["codebooks", "manifest.json"] and location.list("codebooks") == ["a", "b"]
    assert (location.size(), location.size("codebooks"), location.size("codebooks/a")) == (18, 6, 5)
    assert location.exists("codebooks") and location.exists("codebooks/a") and not location.exists("codebooks/c")
    location.delete("codebooks/a")
    location.delete("codebooks/a")
    assert location.list("codebooks") == ["b"]
    location.delete("codebooks")
    assert location.list() == ["manifest.json"] and location.size("codebooks") == 0


def test_what_is_not_there_or_too_large_is_not_read(make: Maker) -> None:
    location = make()
    location.prepare()
    location.write_whole("manifest.json", b"12345")
    with pytest.raises(FileNotFoundError):
        location.read_bytes("codebooks/a", 9)
    with pytest.raises(StoreError, match="looktwice did not write it"):
        location.read_bytes("manifest.json", 4)


def test_a_whole_table_lives_in_either(make: Maker) -> None:
    location = make()
    table = Table.create(location, ENCODER, {"year": int}, ["file:///a/"])
    table.add(random_rows(100))
    name = table.put_codebook(b"book")
    table.note_tokens(token_set(tokens_key="k", codebook_sha256=name))
    table.put_codes([TokenRow("00003", f"{3:064x}", "k", "[]", b"x", 0)])
    table.ledger.put([LedgerEntry("u", "read", "missing", item_id="i")])
    held, before = table.snapshot(), table.search(np.ones(8), 10)
    table.delete(where="year >= 50")
    table.compact(purge=True)
    again = Table.open(make(), ENCODER)
    assert len(again) == 50 and again.codebook(name) == b"book" and again.manifest == table.manifest
    assert again.read_codes(["00003"], "k")[0] is not None and [e.item_id for e in again.ledger] == ["i"]
    sizes = again.info()["bytes"]
    assert sum(sizes.values()) == 2 * sizes["total"] and all(sizes[part] for part in ("items", "tokens", "manifest"))
    assert held.manifest.tokens and len(before) == 10
    with pytest.raises(UsageError, match="is already a table"):
        Table.create(make(), ENCODER)


def test_unfinished_and_foreign_places_are_told_apart_in_either(make: Maker) -> None:
    location = make()
    with pytest.raises(UsageError, match="does not exist"):
        Table.open(location)
    Table.create(location, ENCODER)
    location.write_whole("manifest.json.1.part", location.read_bytes("manifest.json", 9999))
    location.delete("manifest.json")
    with pytest.raises(UsageError, match="is an unfinished table"):
        Table.open(location)
    Table.create(location, ENCODER).add([row("a")])
    assert "manifest.json.1.part" not in location.list()
    location.delete("manifest.json")
    with pytest.raises(StoreError, match="has rows but no manifest"):
        Table.create(location, ENCODER)
    location.write_whole("mine.txt", b"x")
    with pytest.raises(UsageError, match="contains other files"):
        Table.create(location, ENCODER)


@pytest.mark.parametrize("uri", ["memory://t.lt", "ftp://host/t.lt", Path("http:/host/t.lt")])
def test_other_uris_are_refused_with_a_sentence(uri: str | Path) -> None:
    for use in (Table.open, lambda path: Table.create(path, ENCODER)):
        with pytest.raises(UsageError, match="is not a place for a table; pass a folder"):
            use(uri)


def test_a_file_uri_is_its_folder(tmp_path: Path) -> None:
    Table.create((tmp_path / "a b.lt").as_uri(), ENCODER).add([row("a")])
    assert len(Table.open(tmp_path / "a b.lt")) == 1


def test_links_on_the_way_to_a_name_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_bytes(b"mine")
    folder = LocalFolder(tmp_path / "t.lt")
    folder.prepare()
    (tmp_path / "t.lt" / "codebooks").symlink_to(tmp_path / "elsewhere")
    uses: list[Callable[[], object]] = [
        lambda: folder.read_bytes("codebooks/a", 9),
        lambda: folder.write_whole("codebooks/a", b"x"),
        lambda: folder.delete("codebooks/a"),
        lambda: folder.check("codebooks"),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="is a link"):
            use()
    folder.delete("codebooks")
    assert (tmp_path / "elsewhere" / "a").read_bytes() == b"mine" and folder.list() == []
