"""Damage one file of a whole table and use the table: rows, search, tokens, writing. Runs inside a job."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
from mutate import damaged
from parsers import failure

KEY = "k" * 16


def make_table(path: Path) -> None:
    """Make a small table with everything that a table can have: several commits, tokens, previews, a ledger."""
    from looktwice.store import LedgerEntry, PreviewRow, Row, Table, TokenRow
    from looktwice.types import EncoderInfo

    table = Table.create(path, EncoderInfo("toy", "1", "none", 8), {"year": int}, ["file:///a/"], previews=64)
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    rows = [
        Row(f"i{n}", f"file:///a/{n}", f"{n:064x}", 4, 3, f"text {n}", {"year": n}, vector, "file:///a/")
        for n, vector in enumerate(vectors)
    ]
    for start in (0, 10, 20):
        table.add(rows[start : start + 10])
    made_with = dict.fromkeys(("mllm", "revision", "preprocessing", "codec"), "x")
    sha256 = table.put_codebook(b"a codebook")
    table.note_tokens({"tokens_key": KEY, **made_with, "codebook_sha256": sha256, "width": 8, "levels": 0})
    table.put_codes([TokenRow(row.id, row.sha256, KEY, "[]", bytes(100), 0) for row in rows[:20]])
    table.put_previews([PreviewRow(row.id, row.sha256, bytes(200)) for row in rows[:20]])
    table.ledger.put([LedgerEntry("file:///a/x", "read", "missing", root="file:///a/", item_id="x")])
    table.delete(["i3", "i14"])


def use(path: Path) -> None:
    """Do what commands do with a table."""
    from looktwice.store import Table

    table = Table.open(path)
    ids = [row["id"] for row in table.rows()]
    table.search(np.ones(8, np.float32), 5)
    table.search(np.ones(8, np.float32), 5, {"year": {">": 3}})
    table.get(ids[:5])
    table.lookup(ids, ["sha256", "text"])
    table.read_codes(ids, KEY)
    list(table.ledger)
    table.info()
    table.contents()
    for item_id in ids[:3]:
        table.preview(item_id)
    for entry in table.manifest.tokens:
        if entry["codebook_sha256"] is not None:
            table.codebook(entry["codebook_sha256"])
    table.deleted([("file:///a/", "i3")])
    table.snapshot().count("year > 3")
    table.delete(ids[:1])
    table.compact(purge=True)


def attack(folder: str, seed: str, first: str, count: str) -> list[str]:
    """Use tables with a damaged file; return what went wrong: anything but an answer or our own error.

    The file `at` says how far it came, as LanceDB can end the process.
    """
    whole, path, wrong = Path(folder) / "whole.lt", Path(folder) / "t.lt", []
    if not whole.exists():
        make_table(whole)
        shutil.copytree(whole, path)
        use(path)
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file() and file.name[0] != ".")
    for number in range(int(first), int(count)):
        dice = random.Random(f"table {seed} {number}")
        shutil.rmtree(path)
        shutil.copytree(whole, path)
        victim = path / dice.choice(files)
        (Path(folder) / "at").write_text(f"{number} {victim.relative_to(path)}")
        victim.write_bytes(damaged(victim.read_bytes(), dice))
        wrong += failure(partial(use, path), f"table {seed} {number}, {victim.relative_to(path)}")
    return wrong
