"""Encodes and writes nothing: python encode_process.py OUT TABLE|- PART PARTS PATH... pickles the batches into OUT.

With PARTS above 1 this process takes every PARTS-th source, as one of several workers does.
"""

from __future__ import annotations

import os
import pickle
import sys

from colour_encoder import ColourEncoder

from looktwice.indexing import encode_batches
from looktwice.sources import scan
from looktwice.store import Table


def main(out: str, table: str, part: str, parts: str, *paths: str) -> None:
    known = None if table == "-" else Table.open(table).snapshot()
    found = scan(paths, roots=() if known is None else known.manifest.roots)
    sources = found if parts == "1" else list(found)[int(part) :: int(parts)]
    with open(f"{out}.part", "wb") as file:
        for batch in encode_batches(sources, ColourEncoder(), known=known, batch_size=8):
            pickle.dump(batch, file)
    os.replace(f"{out}.part", out)


if __name__ == "__main__":
    main(*sys.argv[1:])
