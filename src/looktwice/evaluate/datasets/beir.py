"""Read a BEIR folder: texts, and images of lines with an "image".

    ROOT/corpus.jsonl       {"_id", "title"?, "text", "image"?: path relative to ROOT}
    ROOT/queries.jsonl      {"_id", "text", "image"?}
    ROOT/qrels/SPLIT.tsv    query-id, corpus-id, score under a header

Layout from the BEIR repository; "image" is ours. A document's text is its title, a space, and its text, as there. Only
queries with labels in the split are asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.evaluate.trec import read_qrels
from looktwice.sources import Source

FETCH = "BEIR's folders are the unpacked archives of github.com/beir-cellar/beir."


def read(root: Path, split: str = "test", partial: bool = False) -> Dataset:
    """Read a BEIR folder."""
    layout = FileLayout(f"{root.resolve().name} {split}", root, FETCH, partial)
    corpus, queries = layout.file("corpus.jsonl"), layout.file("queries.jsonl")
    labels = layout.file("qrels", f"{split}.tsv")
    layout.check()
    qrels = read_qrels(labels)
    items = [_source(layout, corpus, number, record) for number, record in layout.jsonl(corpus)]
    asked = [_source(layout, queries, n, record) for n, record in layout.jsonl(queries) if record.get("_id") in qrels]
    for name in sorted(qrels.keys() - {query.id for query in asked}):
        layout.missing(f"query {name} of {labels.name}")
    layout.count("documents", len(items), None)
    layout.count("queries", len(asked), None)
    measures = ("nDCG@10", "recall@100", "mAP@100")
    notes = tuple(layout.notes)
    return layout.finish(Dataset(layout.name, items, [Query(q) for q in asked], qrels, measures, notes=notes))


def _source(layout: FileLayout, path: Path, number: int, record: dict[str, Any]) -> Source:
    name = layout.get(record, "_id", str, path, f"line {number}")
    text = " ".join(str(record[key]) for key in ("title", "text") if record.get(key))
    if record.get("image"):
        return layout.image(layout.root / layout.get(record, "image", str, path, f"line {number}"), name, text or None)
    return layout.words(path, number, name, text)
