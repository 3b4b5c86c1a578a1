"""Read Google Landmarks v2 (CVPR 2020), retrieval.

    ROOT/retrieval_solution_v2.1.csv       id,images,Usage; `images` are ids separated by spaces
    ROOT/index/a/b/c/abc….jpg              ROOT/test/a/b/c/abc….jpg

Layout from the cvdfoundation/google-landmark repository. The private part is reported, the public one is for tuning.
"""

from __future__ import annotations

import csv
from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.sources import Source

FETCH = (
    "download-dataset.sh of github.com/cvdfoundation/google-landmark fetches index and test; the solution is there too."
)
COUNTS = {"index": 761757, "private": 750, "public": 379}


def read(root: Path, part: str = "private", partial: bool = False) -> Dataset:
    """Read the `part` private or public."""
    layout = FileLayout("GLDv2", root, FETCH, partial)
    path = layout.file("retrieval_solution_v2.1.csv")
    folders = {kind: layout.folder(kind) for kind in ("index", "test")}
    layout.check()
    items = [_image(layout, file) for file in sorted(folders["index"].glob("*/*/*/*.jpg"))]
    layout.count("index", len(items), COUNTS["index"])
    known, queries, qrels = {item.id for item in items}, [], {}
    for name, images in _solution(layout, path, part):
        queries.append(Query(layout.image(_place(folders["test"], name), name)))
        qrels[name] = dict.fromkeys(images, 1)
        for image in images:
            if image not in known:
                layout.missing(_place(folders["index"], image).relative_to(root).as_posix())
    layout.count(f"{part} queries", len(queries), COUNTS[part])
    measures = ("mAP@100", "oracle@100", "success@1")
    return layout.finish(
        Dataset(f"GLDv2 ({part})", items, queries, qrels, measures, prompt="landmark", notes=tuple(layout.notes))
    )


def _image(layout: FileLayout, file: Path) -> Source:
    return layout.unchecked_image(file, file.stem)


def _place(folder: Path, name: str) -> Path:
    return folder / name[:1] / name[1:2] / name[2:3] / f"{name}.jpg"


def _solution(layout: FileLayout, path: Path, part: str) -> list[tuple[str, list[str]]]:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"id", "images", "Usage"} <= set(rows.fieldnames or ()):
            layout.broken(path, "line 1", "the columns id, images, Usage", rows.fieldnames)
        chosen = [row for row in rows if (row["Usage"] or "").lower() == part]
    return [(row["id"], row["images"].split()) for row in chosen if row["images"] not in (None, "", "None")]
