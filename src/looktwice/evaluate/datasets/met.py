"""Read the Met dataset (NeurIPS 2021): photographs of artworks taken by visitors, against the museum's own.

    ROOT/ground_truth/MET_database.json     [{"id": label, "path": …}]     (mini: mini_MET_database.json)
    ROOT/ground_truth/testset.json          [{"path": …, "MET_id": label}]; entries without MET_id show no Met artwork
    ROOT/images/PATH

Layout from the nikosips/met repository (code/utils/datasets.py). An image with the query's label is relevant, as in
ELViS; queries that show no Met artwork have no answer to retrieve and are left out, with their number. With
`everything` they are asked as well: the data set's own GAP counts a confident answer to one of them as a mistake.
"""

from __future__ import annotations

from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, by_label

FETCH = "Images and ground truth are linked from cmp.felk.cvut.cz/met."
COUNTS = {"full": 397121, "mini": 38307, "test": 1003, "val": 129}


def read(
    root: Path, database: str = "full", split: str = "test", partial: bool = False, everything: bool = False
) -> Dataset:
    """Read Met queries of a `split` (test, val) against the full or mini `database`; `everything`: all its queries."""
    layout = FileLayout(f"MET ({database})", root, FETCH, partial)
    listed = layout.file("ground_truth", "MET_database.json" if database == "full" else "mini_MET_database.json")
    asked = layout.file("ground_truth", f"{split}set.json")
    images = layout.folder("images")
    layout.check()
    entries = layout.json(listed, list)
    rows = [
        (layout.get(entry, "path", str, listed, f"entry {i}"), _label(layout, listed, entry, "id", i))
        for i, entry in enumerate(entries)
    ]
    items = [layout.image(images / path, path) for path, _ in rows]
    all_queries = layout.json(asked, list)
    queries, labels = [], {}
    for i, entry in enumerate(all_queries):
        if isinstance(entry, dict) and "MET_id" in entry:
            path = layout.get(entry, "path", str, asked, f"entry {i}")
            queries.append(Query(layout.image(images / path, path)))
            labels[path] = _label(layout, asked, entry, "MET_id", i)
    others = _others(layout, asked, images, all_queries)
    layout.count("images", len(items), COUNTS[database])
    layout.count("queries", len(queries), COUNTS[split])
    layout.notes.append(f"queries that show no Met artwork, {'asked' if everything else 'left out'}: {len(others):,}")
    of = by_label(rows)
    qrels = {query: dict.fromkeys(of.get(label, []), 1) for query, label in labels.items()}
    if everything:
        queries += others
        qrels |= {query.id: {} for query in others}
    return layout.finish(
        Dataset(
            f"{layout.name}, all queries" if everything else layout.name,
            items,
            queries,
            qrels,
            ("mAP@100", "oracle@100", "success@1"),
            prompt="object",
            notes=tuple(layout.notes),
            confidence=everything,
        )
    )


def _others(layout: FileLayout, path: Path, images: Path, entries: list[object]) -> list[Query]:
    """Return the queries that show no Met artwork."""
    paths = [
        layout.get(entry, "path", str, path, f"entry {i}")
        for i, entry in enumerate(entries)
        if not (isinstance(entry, dict) and "MET_id" in entry)
    ]
    return [Query(layout.image(images / path, path)) for path in paths]


def _label(layout: FileLayout, path: Path, entry: object, key: str, number: int) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).lstrip("-").isdigit():
        layout.broken(path, f"entry {number}", f"{key!r} to be a whole number", value)
    return str(int(value))
