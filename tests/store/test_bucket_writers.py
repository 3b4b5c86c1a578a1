"""Several processes write to one table in a bucket, and some are killed: no row is lost, doubled or shifted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bucket_server import BucketServer
from colour_encoder import ColourEncoder, picture
from store_helpers import ENCODER, row

from looktwice.indexing import index
from looktwice.sources import scan
from looktwice.store import LocalFolder, Table
from looktwice.store.lance import connect, make_table

TESTS = Path(__file__).parent.parent
WRITER = """
import sys
import numpy as np
from store_helpers import ENCODER, row
from looktwice.store import LedgerEntry, Table
place, name, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
table = Table.open(place)
print("opened", flush=True)
for batch in range(batches):
    rows = []
    for number in range(batch * 5, batch * 5 + 5):
        vector = np.eye(8)[number % 8] + 0.1 * int(name)
        rows += [row(f"{name}-{number}", vector, text=f"{name} {number}"), row(f"shared-{number}", vector, text="any")]
    with table.writer():
        table.add(rows)
        table.note_run([f"file:///{name}-{batch}/"], None)
        table.ledger.put([LedgerEntry(f"file:///{name}-{batch}", "read", "missing")])
    print(batch, flush=True)
"""


READER = """
import sys
from looktwice.store import Table
table = Table.open(sys.argv[1])
print("opened", flush=True)
while True:
    print(table.snapshot().count("text = 'any'"), flush=True)
"""


def start(cloud: BucketServer, *arguments: object, code: str = WRITER) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(TESTS / "store"), *sys.path])
    argv = [sys.executable, "-c", code, f"{cloud.uri}/t.lt", *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**cloud.environment, "PYTHONPATH": paths})


def acknowledged(writer: subprocess.Popen[str]) -> int:
    """Return how many batches a writer has reported as committed."""
    assert writer.stdout is not None
    return len(writer.stdout.read().split()) - 1


def demand_whole(table: Table, counts: dict[int, int]) -> None:
    """Every acknowledged row is there, once, with its own vector and text."""
    rows = list(table.rows(["id", "text"]))
    ids = [found["id"] for found in rows]
    assert len(ids) == len(set(ids)) == len(table)
    for name, batches in counts.items():
        wanted = [f"{name}-{number}" for number in range(batches * 5)]
        assert set(wanted) <= set(ids)
        for found in table.get(wanted):
            number = int(found.id.split("-")[1])
            vector = np.eye(8)[number % 8] + 0.1 * name
            assert found.text == f"{name} {number}"
            np.testing.assert_allclose(found.vector, vector, atol=2e-3)
        assert {f"file:///{name}-{batch}/" for batch in range(batches)} <= set(table.manifest.roots)
        assert {f"file:///{name}-{batch}" for batch in range(batches)} <= {entry.uri for entry in table.ledger}


def test_three_writers_and_a_reader(cloud: BucketServer) -> None:
    table = Table.create(f"{cloud.uri}/t.lt", ENCODER)
    writers = [start(cloud, name, 6) for name in range(3)]
    seen = [0]
    while any(writer.poll() is None for writer in writers):
        view = table.snapshot()
        ids = [found["id"] for found in view.rows(["id"])]
        assert len(ids) == len(set(ids)) == len(view) and len(ids) >= seen[-1], "a reader sees whole commits only"
        seen.append(len(ids))
        time.sleep(0.2)
    counts = {name: acknowledged(writer) for name, writer in enumerate(writers)}
    assert counts == {0: 6, 1: 6, 2: 6} and all(writer.returncode == 0 for writer in writers)
    newest = Table.open(f"{cloud.uri}/t.lt")
    demand_whole(newest, counts)
    assert len(newest) == 3 * 30 + 30
    newest.compact()
    demand_whole(Table.open(f"{cloud.uri}/t.lt"), counts)


@pytest.mark.parametrize(
    "moment", [0.4, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(1.1, marks=pytest.mark.slow)]
)
def test_writers_and_a_reader_that_are_killed(cloud: BucketServer, moment: float) -> None:
    Table.create(f"{cloud.uri}/t.lt", ENCODER).add([row("first")])
    writers = [start(cloud, name, 40) for name in range(2)]
    reader = start(cloud, code=READER)
    for process in (*writers, reader):
        assert process.stdout is not None and process.stdout.readline() == "opened\n"
    time.sleep(moment)
    for process in (*writers, reader):
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert reader.stdout is not None
    filtered = list(map(int, reader.stdout.read().rpartition("\n")[0].split()))
    assert filtered == sorted(filtered) and all(count % 5 == 0 for count in filtered), "whole commits, under a filter"
    counts = {name: acknowledged(writer) + 1 for name, writer in enumerate(writers)}
    table = Table.open(f"{cloud.uri}/t.lt")
    demand_whole(table, counts)
    table.add([row("last")])
    table.compact(purge=True)
    again = Table.open(f"{cloud.uri}/t.lt")
    demand_whole(again, counts)
    assert {"first", "last"} <= {found["id"] for found in again.rows(["id"])}


DRIVER = """
import sys
from colour_encoder import ColourEncoder
from looktwice.indexing import index, writer
from looktwice.indexing.upserting import open_or_create
from looktwice.sources import scan
writer.COMMIT_ROWS = 8
place, folder = sys.argv[1:]
encoder = ColourEncoder()
table = open_or_create(place, encoder, {}, 0, {})
print(index(table, scan([folder]), encoder, batch_size=4).failed)
"""


def test_two_drivers_index_the_same_images_into_a_new_table(cloud: BucketServer, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.png").write_bytes(picture(f"rgb({number}, {255 - number}, {number % 7 * 30})"))
    paths = os.pathsep.join([str(TESTS), *sys.path])
    argv = [sys.executable, "-c", DRIVER, f"{cloud.uri}/t.lt", str(tmp_path)]
    environment = {**cloud.environment, "PYTHONPATH": paths}
    drivers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert [driver.communicate()[0].strip() for driver in drivers] == ["0", "0"]
    table = Table.open(f"{cloud.uri}/t.lt")
    ids = [found["id"] for found in table.rows(["id"])]
    assert sorted(ids) == [f"{number:02}.png" for number in range(60)]
    encoder = ColourEncoder()
    again = index(table, scan([tmp_path]), encoder)
    assert (again.unchanged, again.failed) == (60, 0)


@pytest.mark.parametrize(
    ("said", "declared"),
    [
        ("An unenforced primary key is already set", True),
        ("Incompatible transaction: This UpdateConfig transaction is incompatible with concurrent transaction "
         "UpdateConfig at version 2.", True),
        ("Incompatible transaction: This UpdateConfig transaction is incompatible with concurrent transaction "
         "Overwrite at version 2.", True),
        ("no space left on device", False),
    ],
)  # fmt: skip
def test_a_key_that_another_process_has_just_declared_is_no_error(
    said: str, declared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = connect(LocalFolder(tmp_path))
    schema = pa.schema([pa.field("id", pa.string(), nullable=False)])

    kind = type(database.create_table("other", schema=schema))
    declare = kind.set_unenforced_primary_key

    def raced(table: Any, columns: list[str]) -> None:
        declare(table, columns)
        raise RuntimeError(said)

    monkeypatch.setattr(kind, "set_unenforced_primary_key", raced)
    if declared:
        made = make_table(database, "items", schema, "id").schema.field("id")
        assert any(b"primary-key" in name for name in made.metadata)
    else:
        with pytest.raises(RuntimeError, match="no space"):
            make_table(database, "items", schema, "id")
