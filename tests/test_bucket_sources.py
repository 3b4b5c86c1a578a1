"""Images, archives, lists and Parquet files of a bucket are the items that they would be in a folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bucket_server import BucketServer
from colour_encoder import ColourEncoder, picture

from looktwice.errors import UsageError
from looktwice.indexing import IndexReport, index
from looktwice.sources import Scan, Unreadable, scan
from looktwice.store import Table

COLOURS = ("red", "green", "blue", "gray")


def tar_of(names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            for suffix, data in ((".png", picture(name)), (".txt", f"a {name}".encode())):
                member = tarfile.TarInfo(f"deep/{name}{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def parquet_of(names: list[str]) -> bytes:
    out = io.BytesIO()
    images = [{"bytes": picture(name), "path": None} for name in names]
    columns = {"id": [f"p-{name}" for name in names], "image": images, "text": names, "year": [1990, 2000, 2010, 2020]}
    pq.write_table(pa.table(columns), out, row_group_size=2)
    return out.getvalue()


def files() -> dict[str, bytes]:
    lines = [
        {"id": "l-red", "image": "a b#1/red %.png", "text": "x"},
        {"id": "l-text", "text": "only words"},
        {"id": 7},
    ]
    return {
        **{f"a b#1/{name} %.png": picture(name) for name in COLOURS},
        "a b#1/notes.doc": b"x",
        "a b#1/.hidden.png": b"x",
        "bad.png": b"not an image",
        "shard.tar": tar_of(list(COLOURS)),
        "list.jsonl": "\n".join(map(json.dumps, lines)).encode(),
        "rows.parquet": parquet_of(list(COLOURS)),
        "x.lance/data.png": b"a table's own",
    }


@pytest.fixture
def both(cloud: BucketServer, tmp_path: Path) -> tuple[str, str]:
    """The same files in a folder and below a prefix."""
    bucket = cloud.store
    for name, data in files().items():
        bucket.write(f"in/{name}", data)
        if "lance" not in name:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(data)
    return str(tmp_path / "in"), f"{cloud.uri}/in"


def met(found: Scan) -> list[tuple[object, ...]]:
    """What a scan yields, without the place."""
    rows: list[tuple[object, ...]] = []
    for one in found:
        if isinstance(one, Unreadable):
            rows.append((one.reason, one.uri.rpartition("/in/")[2], one.hides is not None))
        else:
            data = one.read()
            rows.append((one.id, data, one.text, dict(one.metadata), one.has_image, one.uri.rpartition("/in/")[2]))
    return sorted(rows, key=repr)


@pytest.mark.parametrize(
    "names",
    [[""], ["shard.tar"], ["list.jsonl"], ["rows.parquet"], ["a b#1/blue %.png"], ["a b#1/*.png"], ["", "list.jsonl"]],
    ids=str,
)
def test_the_same_items(both: tuple[str, str], names: list[str]) -> None:
    local, remote = (scan([f"{base}/{name}" for name in names]) for base in both)
    found = met(remote)
    assert found == met(local) and found
    assert len(remote.roots) == len(local.roots) and len(remote.scopes) == len(local.scopes)
    assert remote.ignored[".doc"] == local.ignored[".doc"]


def test_what_is_not_there_is_said(cloud: BucketServer) -> None:
    for name, said in (("nothing", "does not exist; check"), ("*.png", "Nothing matches")):
        with pytest.raises(UsageError, match=said):
            scan([f"{cloud.uri}/{name}"])


def test_a_table_in_a_bucket_of_images_in_the_same_bucket(both: tuple[str, str], cloud: BucketServer) -> None:
    encoder, place = ColourEncoder(), f"{cloud.uri}/t.lt"
    table = Table.create(place, encoder.info, {"year": int})
    paths = [both[1], f"{both[1]}/list.jsonl", f"{both[1]}/rows.parquet"]

    def run(**how: bool) -> IndexReport:
        return index(table, scan(paths, roots=table.manifest.roots), encoder, **how)

    first = run()
    assert (first.added, first.failed) == (14, 2)
    assert {entry.reason for entry in table.ledger} == {"not-an-image", "bad-record"}
    again = run()
    assert (again.added, again.unchanged, again.failed) == (0, 14, 2)
    cloud.store.delete(["in/a b#1/red %.png"])
    assert run(prune=True).pruned >= 1
    assert table.count("year > 2000") == 2
    assert "a b#1/red %.png" not in table.hashes() and "a b#1/blue %.png" in table.hashes()
