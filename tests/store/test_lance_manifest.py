"""A stranger's table reads no file outside its folder, whatever its Lance manifests say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lancedb
import pytest
from store_helpers import ENCODER, random_rows

from looktwice.errors import Damaged, StoreError
from looktwice.store import Table
from looktwice.store.lance import plain_errors
from looktwice.store.lance_manifest import message, varint
from looktwice.store.location import LocalFolder

FRAGMENTS, FILES, BASE_ID, BASE_PATHS = 2, 2, 7, 18
HERE = b"\x18\x01"  # is_dataset_root


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = Table.create(tmp_path / "t.lt", ENCODER)
    made.add(random_rows(3))
    return tmp_path / "t.lt"


def encoded(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, 64, 7) if number >> shift or not shift]
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


def field(number: int, value: bytes) -> bytes:
    return encoded(number << 3 | 2) + encoded(len(value)) + value


def parts(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, value (of bytes only) and the whole encoding of each field."""
    place = 0
    while place < len(data):
        start = place
        tag, place = varint(data, place)
        size, after = varint(data, place) if tag & 7 in (0, 2) else (8 if tag & 7 == 1 else 4, place)
        place = after + (size if tag & 7 != 0 else 0)
        yield tag >> 3, data[after:place], data[start:place]


def edited(data: bytes, path: tuple[int, ...], more: bytes) -> bytes:
    """Append a field to every message at a path of field numbers."""
    if not path:
        return data + more
    return b"".join(
        field(number, edited(value, path[1:], more)) if number == path[0] else whole
        for number, value, whole in parts(data)
    )


def newest(table: Path, name: str = "items") -> Path:
    return min((table / f"{name}.lance" / "_versions").glob("*.manifest"))


def rewrite(file: Path, proto: bytes) -> None:
    data = file.read_bytes()
    start = int.from_bytes(data[-16:-8], "little")
    file.write_bytes(data[:start] + len(proto).to_bytes(4, "little") + proto + data[-16:])


def point_elsewhere(table: Path, target: Path) -> None:
    """Make the items' data files those of another folder."""
    proto = message(newest(table).read_bytes())
    proto = edited(proto, (FRAGMENTS, FILES), encoded(BASE_ID << 3) + b"\x01")
    base = b"\x08\x01" + HERE + field(4, str(target).encode())
    rewrite(newest(table), proto + field(BASE_PATHS, base))


def test_the_attack_works_on_lancedb_and_is_refused_here(table: Path, tmp_path: Path) -> None:
    shutil.move(table / "items.lance" / "data", tmp_path / "elsewhere" / "data")
    point_elsewhere(table, tmp_path / "elsewhere")
    assert lancedb.connect(table).open_table("items").to_arrow().num_rows == 3
    with pytest.raises(Damaged, match="names files outside the table"):
        Table.open(table)


def test_an_older_version_is_looked_at_before_it_is_read(table: Path, tmp_path: Path) -> None:
    old = newest(table)
    Table.open(table).delete(["00001"])
    assert newest(table) != old
    rewrite(old, message(old.read_bytes()) + field(BASE_PATHS, HERE))
    for reads in (Table.tidy, Table.compact, partial(Table.compact, purge=True)):
        with pytest.raises(Damaged, match="outside"):
            reads(Table.open(table))
    shutil.copy(old, old.with_name("9.manifest"))  # LanceDB knows two ways to count; one is not told from the other
    with pytest.raises(Damaged, match="outside"):
        Table.open(table)


def test_many_versions_cost_an_opening_nothing(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = Table.open(table), list[str]()
    for number in range(3, 9):
        made.add(random_rows(1, start=number))
    whole = LocalFolder.read_bytes
    monkeypatch.setattr(LocalFolder, "read_bytes", lambda *given: [read.append(given[1]), whole(*given)][1])
    assert len(Table.open(table)) == 9
    assert sum("items.lance/_versions" in name for name in read) == 1


def test_a_long_tag_hides_nothing(table: Path) -> None:
    tag = encoded(BASE_PATHS << 3 | 2)
    rewrite(newest(table), message(newest(table).read_bytes()) + tag[:1] + b"\x81\x00" + b"\x02" + HERE)
    with pytest.raises(Damaged, match="outside"):
        Table.open(table)


def test_a_folder_of_versions_is_refused(table: Path) -> None:
    """LanceDB would read the manifest in it."""
    manifest = newest(table)
    (manifest.parent / "sub").mkdir()
    shutil.move(manifest, manifest.parent / "sub" / manifest.name)
    with pytest.raises(Damaged, match="sub is a folder"):
        Table.open(table)


def test_a_catalogue_is_refused(table: Path) -> None:
    """LanceDB looks there first for where a table lies."""
    (table / "__manifest").mkdir()
    with pytest.raises(Damaged, match="__manifest"):
        Table.open(table)


@pytest.mark.parametrize("name", ["tokens", "ledger"])
def test_the_other_tables_are_checked(table: Path, name: str) -> None:
    rewrite(newest(table, name), message(newest(table, name).read_bytes()) + field(BASE_PATHS, HERE))
    with pytest.raises(Damaged, match="outside"):
        Table.open(table)


@pytest.mark.parametrize("data", [b"", b"LANC", b"\xff" * 12 + b"LANC", b"\0" * 12 + b"LANC", b"\x80" * 400])
def test_a_damaged_manifest_is_refused(table: Path, data: bytes) -> None:
    newest(table).write_bytes(data)
    with pytest.raises(Damaged, match=r"\.manifest is damaged"):
        Table.open(table)


@pytest.mark.parametrize("end", [b"\x92", b"\x13", b"\x92\x01\x7f", b"\xff" * 20])
def test_a_damaged_message_is_refused(table: Path, end: bytes) -> None:
    rewrite(newest(table), message(newest(table).read_bytes()) + end)
    with pytest.raises(Damaged):
        Table.open(table)


def test_a_list_of_deleted_rows_with_false_lengths_is_refused(table: Path) -> None:
    """LanceDB would ask for a terabyte, and end the process."""
    Table.open(table).delete(["00001"])
    (file,) = (table / "items.lance" / "_deletions").glob("*.arrow")
    whole, refused = file.read_bytes(), 0
    for start in range(0, len(whole) - 4, 4):
        file.write_bytes(whole[:start] + b"\xff\xff\xff\x7f" + whole[start + 4 :])
        try:
            assert len(Table.open(table)) == 2  # nobody looks at these bytes
        except StoreError:
            refused += 1
    assert refused > 10


def test_a_panic_of_the_database_is_one_sentence() -> None:
    """A damaged list of deleted rows made one; its class cannot be imported."""
    panic = type("RustPanic", (Exception,), {})
    with pytest.raises(StoreError, match="reading rows"), plain_errors("t.lt", "reading rows"):
        raise panic("rust future panicked: unknown error")
    with pytest.raises(KeyError), plain_errors("t.lt", "reading rows"):
        raise KeyError("a mistake of ours")
