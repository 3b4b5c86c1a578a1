"""The commands of docs/guides/cluster.md run, on a bucket of a real server."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bucket_server import BucketServer
from conftest import Looktwice

from looktwice.testing import make_images

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")


def commands(ray: bool) -> list[list[str]]:
    """The command lines of the guide, with or without a cluster."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    lines = [
        line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.startswith("looktwice ")
    ]
    return [shlex.split(line)[1:] for line in lines if ("--ray" in line) is ray]


@pytest.fixture
def place(cloud: BucketServer, tmp_path: Path) -> str:
    """A bucket with twelve images, as the guide has it, also as rows of Parquet, and the files beside it."""
    folder = make_images(tmp_path / "made")
    images = sorted(folder.iterdir())
    for image in images:
        cloud.store.write(f"images/{image.name}", image.read_bytes())
    rows = [{"image": image.read_bytes(), "license": "cc0", "year": 1899 + n} for n, image in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), out := io.BytesIO())
    cloud.store.write("rows.parquet", out.getvalue())
    (tmp_path / "query.png").write_bytes((folder / "red-1.png").read_bytes())
    return cloud.uri


def test_the_commands_run(looktwice: Looktwice, place: str) -> None:
    given = commands(ray=False)
    assert len(given) >= 8
    for words in given:
        done = looktwice(*[word.replace("s3://pictures", place) for word in words])
        assert done.code == 0, (words, done.err)
    assert looktwice("info", f"{place}/t.lt", "--json").records[0]["items"] == 11
    assert looktwice("info", "sample.lt", "--json").records[0]["items"] == 10
