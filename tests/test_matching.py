"""`index --where` takes the items that pass a filter, from lists and Parquet files here and in buckets."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bucket_server import BucketServer
from colour_encoder import picture
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.errors import UnknownName, UsageError
from looktwice.indexing.matching import matching
from looktwice.sources import Unreadable, scan
from looktwice.store import Table

WHERE = "license = 'cc0' AND year > 1900"
COLUMNS = {"license": str, "year": int}
ROWS = [
    {"id": f"i{number}", "license": license, "year": year, "text": None if number % 2 else "x"}
    for number, (license, year) in enumerate(
        [("cc0", 1890), ("cc0", 1901), ("by", 1950), ("cc0", 2001), (None, 2002), ("cc0", None), ("cc0", 1999)]
    )
]


def as_jsonl(images: list[bytes]) -> dict[str, bytes]:
    lines = [json.dumps({**row, "image": f"{row['id']}.png"}) for row in ROWS]
    lines.insert(2, "{no json")
    lines.append(json.dumps({"id": "odd", "text": "x", "license": "cc0", "year": "2020"}))
    named = {f"{row['id']}.png": data for row, data in zip(ROWS, images, strict=True)}
    return {"list.jsonl": "\n".join(lines).encode(), **named}


def as_parquet(images: list[bytes]) -> dict[str, bytes]:
    out = io.BytesIO()
    rows = [{**row, "image": {"bytes": data, "path": None}} for row, data in zip(ROWS, images, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=2)
    return {"list.parquet": out.getvalue()}


@pytest.mark.parametrize("made", [as_jsonl, as_parquet])
@pytest.mark.parametrize("place", ["here", "in a bucket"])
def test_items_that_pass(
    made: Callable[..., dict[str, bytes]], place: str, tmp_path: Path, cloud: BucketServer
) -> None:
    files = made([picture(f"rgb({20 * n}, 9, 200)") for n in range(len(ROWS))])
    for name, data in files.items():
        if place == "here":
            (tmp_path / name).write_bytes(data)
        else:
            cloud.store.write(f"{made.__name__}/{name}", data)
    base = str(tmp_path) if place == "here" else f"{cloud.uri}/{made.__name__}"
    found = matching(scan([f"{base}/{next(iter(files))}"]), WHERE, COLUMNS)
    met = [one.reason if isinstance(one, Unreadable) else one.id for one in found]
    assert met == ["i1", *["bad-record"] * (made is as_jsonl), "i3", "i6"]
    assert found.left_out == 4 + (made is as_jsonl)
    found.limit = 1
    assert [one.id for one in found] == ["i1"] and found.scopes == ()


def test_folders_have_names_only(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture("red"))
    assert [one.id for one in matching(scan([tmp_path]), {"id": ["0.png", "2.png"]}, {})] == ["0.png", "2.png"]


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("licence = 'cc0'", UnknownName, "did you mean license"),
        ("width > 3", UnknownName, "--column KEY:TYPE"),
        ("year > ", UsageError, "cannot be used"),
        ("year > 1900) OR (1 = 1", UsageError, "no opening bracket"),
    ],
)
def test_a_wrong_filter_is_refused_before_anything_is_read(
    where: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        matching(scan([tmp_path]), where, COLUMNS)


def test_the_command(tmp_path: Path) -> None:
    for name, data in as_jsonl([picture(f"rgb({20 * n}, 9, 200)") for n in range(len(ROWS))]).items():
        (tmp_path / name).write_bytes(data)
    line = ["index", str(tmp_path / "t.lt"), str(tmp_path / "list.jsonl"), "--where", WHERE]
    refused = CliRunner().invoke(app, line)
    assert refused.exit_code == 2 and "Unknown column 'license'" in refused.stderr
    assert not (tmp_path / "t.lt").exists()
    line += ["--column", "license", "--column", "year:int"]
    assert CliRunner().invoke(app, [*line, "--prune"]).exit_code == 2
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 3 and "5 items did not pass --where." in done.stderr, done.output
    assert sorted(Table.open(tmp_path / "t.lt").hashes()) == ["i1", "i3", "i6"]
