"""Read queries of image and text for another image: CIRR (ICCV 2021) and CIRCO (ICCV 2023), validation.

    cirr    ROOT/cirr/captions/cap.rc2.val.json      [{"pairid", "reference", "target_hard", "caption", "img_set"}]
            ROOT/cirr/image_splits/split.rc2.val.json      {name: "./dev/NAME.png"}, relative to ROOT
    circo   ROOT/annotations/val.json      [{"id", "reference_img_id", "relative_caption", "gt_img_ids"}]
            ROOT/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json, …/unlabeled2017/FILE_NAME

Layouts from the CIRR and CIRCO repositories. Test labels are not public. CIRR: the reference image is junk, as in its
evaluation; R@k is `success@k`. `cirr:subset` gives its R_subset@k: each query chooses among the other five images of
its own group ("img_set": {"members"}), which look alike. CIRCO: mAP@k with min(k, |G|), the reference stays.
"""

from __future__ import annotations

from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout

FETCH_CIRR = "Clone the branch cirr_dataset of github.com/Cuberick-Orion/CIRR as cirr; the images are NLVR2's."
FETCH_CIRCO = "Labels are in github.com/miccunifi/CIRCO; the images are COCO's unlabeled2017."
SUCCESSES = ("success@1", "success@5", "success@10", "success@50")
COUNTS = {"cirr": (2297, 4181), "circo": (123403, 220)}


def read_cirr(root: Path, partial: bool = False, subset: bool = False) -> Dataset:
    """Read CIRR's validation split; with `subset`, queries choose among the images of their own group."""
    layout = FileLayout("CIRR val", root, FETCH_CIRR, partial)
    captions = layout.file("cirr", "captions", "cap.rc2.val.json")
    split = layout.file("cirr", "image_splits", "split.rc2.val.json")
    layout.check()
    paths = layout.json(split, dict)
    below = root / "cirr" / "img_raw"  # its README's place for images; NLVR2's own folders have them beside cirr
    images = below if below.is_dir() else root
    items = {name: layout.image(images / layout.get(paths, name, str, split, name), name) for name in paths}
    queries, qrels = [], {}
    groups: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(layout.json(captions, list)):
        where = f"entry {number}"
        name = str(layout.get(entry, "pairid", int, captions, where))
        reference, target, text = (
            layout.get(entry, key, str, captions, where) for key in ("reference", "target_hard", "caption")
        )
        if not {reference, target} <= items.keys():
            layout.broken(captions, where, "images of the split", (reference, target))
        queries.append(Query(layout.image(images / paths[reference], name, text)))
        qrels[name] = {target: 1, reference: -1}
        if subset:
            groups[name] = _others(layout, captions, where, entry, reference, target)
            if not set(groups[name]) <= items.keys():
                layout.broken(captions, where, "members that are images of the split", groups[name])
    layout.count("images", len(items), COUNTS["cirr"][0])
    layout.count("queries", len(queries), COUNTS["cirr"][1])
    measures = ("success@1", "success@2", "success@3") if subset else SUCCESSES
    return layout.finish(
        Dataset(
            f"{layout.name}, subset" if subset else layout.name,
            [*items.values()],
            queries,
            qrels,
            measures,
            candidates=groups if subset else None,
            prompt="composed",
            notes=tuple(layout.notes),
        )
    )


def _others(layout: FileLayout, path: Path, where: str, entry: object, reference: str, target: str) -> tuple[str, ...]:
    """Return the group of a query without its reference image."""
    group = layout.get(entry, "img_set", dict, path, where)
    members = [str(name) for name in layout.get(group, "members", list, path, f"{where}, img_set")]
    if not {reference, target} <= set(members) or len(set(members)) < len(members):
        layout.broken(path, where, f"members that are distinct and hold {reference!r} and {target!r}", members)
    return tuple(name for name in members if name != reference)


def read_circo(root: Path, partial: bool = False) -> Dataset:
    """Read CIRCO's validation split."""
    layout = FileLayout("CIRCO val", root, FETCH_CIRCO, partial)
    labels = layout.file("annotations", "val.json")
    info = layout.file("COCO2017_unlabeled", "annotations", "image_info_unlabeled2017.json")
    folder = layout.folder("COCO2017_unlabeled", "unlabeled2017")
    layout.check()
    files = {
        str(layout.get(entry, "id", int, info, f"image {i}")): layout.get(entry, "file_name", str, info, f"image {i}")
        for i, entry in enumerate(layout.get(layout.json(info, dict), "images", list, info, "the top"))
    }
    items = [layout.image(folder / file, name) for name, file in files.items()]
    queries, qrels = [], {}
    for number, entry in enumerate(layout.json(labels, list)):
        where = f"entry {number}"
        name, reference = (str(layout.get(entry, key, int, labels, where)) for key in ("id", "reference_img_id"))
        targets = [str(target) for target in layout.get(entry, "gt_img_ids", list, labels, where)]
        if not {reference, *targets} <= files.keys():
            layout.broken(labels, where, "images of unlabeled2017", [reference, *targets])
        text = layout.get(entry, "relative_caption", str, labels, where)
        queries.append(Query(layout.image(folder / files[reference], name, text)))
        qrels[name] = dict.fromkeys(targets, 1)
    layout.count("images", len(items), COUNTS["circo"][0])
    layout.count("queries", len(queries), COUNTS["circo"][1])
    measures = ("mAP@5", "mAP@10", "mAP@25", "mAP@50")
    notes = tuple(layout.notes)
    return layout.finish(Dataset(layout.name, items, queries, qrels, measures, prompt="composed", notes=notes))
