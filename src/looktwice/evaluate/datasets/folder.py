"""Read your own images: one folder per instance, ROOT/INSTANCE/*.jpg. Every image asks for the rest of its folder.

The query itself is junk. The only image of a folder is a distractor.
"""

from __future__ import annotations

from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, by_label
from looktwice.sources import Source, scan

FETCH = "Put each instance's images into a folder of its own."


def read(root: Path, partial: bool = False) -> Dataset:
    """Read the folders at any depth below `root`; images in `root` itself are distractors."""
    layout = FileLayout(root.resolve().name, root, FETCH, partial)
    items = [source for source in scan([root]) if isinstance(source, Source)]
    of = by_label((source.id, _instance(source.id)) for source in items)
    queries = [Query(s) for s in items if (label := _instance(s.id)) and len(of[label]) > 1]
    if not queries:
        layout.missing("a folder with two images or more")
    layout.check()
    qrels = {q.id: {**dict.fromkeys(of[_instance(q.id)], 1), q.id: -1} for q in queries}
    layout.count("images", len(items), None)
    layout.count("queries", len(queries), None)
    measures = ("mAP@100", "oracle@100", "success@1")
    return layout.finish(Dataset(layout.name, items, queries, qrels, measures, notes=tuple(layout.notes)))


def _instance(item_id: str) -> str:
    """Return the folder of an image, which names what it shows; "" in the root."""
    return item_id.rpartition("/")[0]
