"""Children of os.fork: LanceDB does not survive a fork, so a table says so where it would crash or hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

# One process forks all children, as starting Python and LanceDB takes most of the time.
SCRIPT = """
import json, os, signal, sys, warnings
from pathlib import Path
import numpy as np
from store_helpers import ENCODER, random_rows
from looktwice.errors import LooktwiceError
from looktwice.store import LedgerEntry, Table

warnings.simplefilter("ignore")  # LanceDB's own about forks
path = Path(sys.argv[1])
ends = {}

def child(name, work):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            said = f"done: {work()}"
        except LooktwiceError as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    status = os.waitpid(pid, 0)[1]
    ends[name] = said if status == 0 else f"status {status}"

def made(name):
    table = Table.create(path / name, ENCODER)
    table.add(random_rows(3))
    return len(table)

child("before any table was opened", lambda: made("first.lt"))
import lancedb
child("with LanceDB loaded only", lambda: len(Table.open(path / "first.lt")))
table = Table.open(path / "first.lt")
vector = np.ones(8)
child("without a table", lambda: float(vector @ vector))
for name, work in {
    "len": lambda: len(table),
    "search": lambda: table.search(vector, 2),
    "search_many": lambda: table.search_many(vector[None], 2),
    "count": lambda: table.count("width > 1"),
    "get": lambda: table.get(["00000"]),
    "rows": lambda: list(table.rows()),
    "add": lambda: table.add(random_rows(2)),
    "delete": lambda: table.delete(["00000"]),
    "compact": lambda: table.compact(),
    "snapshot": lambda: table.snapshot(),
    "writer": lambda: table.writer().__enter__(),
    "ledger": lambda: list(table.ledger),
    "put": lambda: table.ledger.put([LedgerEntry("a", "read", "missing")]),
    "read_codes": lambda: table.read_codes(["00000"], "key"),
    "pending_tokens": lambda: list(table.pending_tokens("key")),
    "info": lambda: table.info(),
    "export": lambda: table.export(path / "out"),
    "open": lambda: Table.open(path / "first.lt"),
    "create": lambda: made("second.lt"),
}.items():
    child(name, work)
with table.writer():
    child("while writing", lambda: table.add(random_rows(2)))
    table.add(random_rows(1, start=3))
print(json.dumps({"ends": ends, "rows": len(table)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_instead_of_crashing(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(TESTS / "store"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ends: dict[str, str] = found["ends"]
    assert ends.pop("before any table was opened") == "done: 3"
    assert ends.pop("with LanceDB loaded only") == "done: 3"
    assert ends.pop("without a table") == "done: 8.0"
    assert len(ends) == 20
    for name, said in ends.items():
        assert said.startswith("UsageError: This process was forked"), f"{name}: {said}"
        assert said.endswith("start processes with 'spawn'.")
    assert found["rows"] == 4, "the parent goes on"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["first.lt"]
