"""Indexes a folder and may be killed: python index_process.py TABLE FOLDER COMMIT_ROWS SECONDS_PER_BATCH.

Prints the number of committed rows after every commit, "locked" where another process writes, "done" at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from colour_encoder import ColourEncoder

from looktwice.errors import Locked
from looktwice.indexing import index, writer
from looktwice.sources import scan
from looktwice.store import Table
from looktwice.types import Item


class SlowEncoder(ColourEncoder):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def encode(self, items: Sequence[Item]) -> object:
        time.sleep(self.seconds)
        return super().encode(items)


def main(path: Path, folder: str, commit_rows: str, seconds: str) -> None:
    writer.COMMIT_ROWS = int(commit_rows)
    encoder = SlowEncoder(float(seconds))
    try:
        made = (path / "manifest.json").exists()
        table = Table.open(path, encoder.info) if made else Table.create(path, encoder.info)
        print("started", flush=True)
        index(
            table,
            scan([folder]),
            encoder,
            batch_size=10,
            progress=lambda _: print(len(table), flush=True),
            max_failures=0,
        )
        print("done", flush=True)
    except Locked:
        print("locked", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
