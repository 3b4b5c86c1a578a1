"""Read Product1M (ICCV 2021), instance level: queries show several products, items single ones.

    ROOT/product1m_gallery_ossurl_v2.txt, product1m_test_ossurl_v2.txt     id#####title#####url#####url#####labels
    ROOT/product1m_gallery_ossurl_v2/ID.jpg                                ROOT/product1m_test_ossurl_v2/ID.jpg

Layout from the Product1M repository and the evaluation scripts written for it; images are in one folder per list. A
gallery image is relevant where it shares a label with the query. The published counts could not be confirmed, so they
are noted and not checked. Several labels are separated by `#;#`.
"""

from __future__ import annotations

from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, by_label

FETCH = "The lists are linked from github.com/zhanxlin/Product1M; the images are at the addresses in them."
LISTS = {part: f"product1m_{part}_ossurl_v2" for part in ("gallery", "test")}


def read(root: Path, partial: bool = False, own: bool = False) -> Dataset:
    """Read Product1M's test queries and gallery; with `own`, labels and measures of its own evaluation script.

    The script takes a gallery image's first label only, and divides each sum of precisions by the number of hits found
    (`foundAP@k`). ELViS and MLLM-ILR take all labels and min(|G|, 100).
    """
    layout = FileLayout("Product1M", root, FETCH, partial)
    files = {part: layout.file(f"{name}.txt") for part, name in LISTS.items()}
    folders = {part: layout.folder(name) for part, name in LISTS.items()}
    layout.check()
    rows = {part: _rows(layout, path) for part, path in files.items()}
    items = [layout.image(folders["gallery"] / f"{name}.jpg", name) for name, _ in rows["gallery"]]
    queries = [Query(layout.image(folders["test"] / f"{name}.jpg", name)) for name, _ in rows["test"]]
    layout.count("gallery", len(items), None)
    layout.count("queries", len(queries), None)
    shows = by_label((name, label) for name, labels in rows["gallery"] for label in (labels[:1] if own else labels))
    qrels = {name: {item: 1 for label in labels for item in shows.get(label, [])} for name, labels in rows["test"]}
    measures = ("foundAP@100", "foundAP@50", "foundAP@10") if own else ("mAP@100", "oracle@100", "success@1")
    layout.notes.append("each gallery image's first label only, as its own script" if own else "all labels, as ELViS")
    return layout.finish(
        Dataset(
            "Product1M, own measure" if own else "Product1M",
            items,
            queries,
            qrels,
            measures,
            prompt="object",
            notes=tuple(layout.notes),
        )
    )


def _rows(layout: FileLayout, path: Path) -> list[tuple[str, list[str]]]:
    return [(row[0], row[4].strip().split("#;#")) for row in layout.columns(path, "#####", 5)]
