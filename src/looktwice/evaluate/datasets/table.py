"""Read any table with a file of queries and labels as a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.trec import read_qrels
from looktwice.sources import Source, Unreadable, Urls, scan

COLUMNS = ("id", "uri", "text", "width")


def read(rows: Iterable[Mapping[str, Any]], queries: Path, qrels: Path, name: str, urls: Urls = "refused") -> Dataset:
    """Return a dataset of a table's `rows` (COLUMNS), a .jsonl of queries and TREC or BEIR labels.

    `urls` says which images may be fetched. Rows are read once, when the items are. Raises UsageError for an unusable
    query, a repeated id, and queries without any label.
    """
    asked = []
    for found in scan([queries], urls=urls):
        if isinstance(found, Unreadable):
            raise UsageError(f"{queries} is not a usable query file: {found.detail} ({found.reason}).")
        asked.append(Query(found))
    ids = Counter(query.id for query in asked)
    if (twice := next((name for name, n in ids.items() if n > 1), None)) is not None:
        raise UsageError(f"{queries} has the id {twice!r} {ids[twice]} times; ids must be unique.")
    labels = read_qrels(qrels)
    if not labels.keys() & {query.id for query in asked}:
        raise UsageError(f"{queries} and {qrels} share no query id; use the same ids in both.")
    items = (Source(r["id"], r["uri"], "", r["text"], has_image=bool(r["width"]), urls=urls) for r in rows)
    kept = [query for query in asked if query.id in labels]
    notes = (f"queries: {len(kept):,} with labels of {len(asked):,}",)
    return Dataset(name, items, kept, labels, ("mAP@100", "success@1", "oracle@100"), notes=notes)
