"""Read SugarCrepe (NeurIPS 2023): choose between an image's caption and a slightly changed one.

    ROOT/add_att.json … swap_obj.json     {"0": {"filename", "caption", "negative_caption"}}
    ROOT/val2017/FILENAME                 COCO

Layout from the RAIVNLab/sugar-crepe repository. Every question is asked once. Its captions are items of their own,
KIND/KEY/1 and KIND/KEY/2, and a hash says which is the right one: where scores are equal and the id decides, about one
half is right. The released RetLLM code always has the right one second.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, relevant
from looktwice.evaluate.groups import by_query
from looktwice.sources import Source

FETCH = "The JSON files are in github.com/RAIVNLab/sugar-crepe (data/), the images in val2017.zip of cocodataset.org."
COUNTS: dict[str, int | None] = {
    "add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666,
    "swap_obj": None,  # 246 in the paper, 245 in the files
}  # fmt: skip


def read(root: Path, partial: bool = False) -> Dataset:
    """Read all seven files; groups are the kinds, and Add, Replace and Swap as means of their kinds.

    The tables of papers have these means. The groups "by question" weigh every question alike.
    """
    layout = FileLayout("SugarCrepe", root, FETCH, partial)
    paths = {kind: layout.file(f"{kind}.json") for kind in COUNTS}
    layout.folder("val2017")
    layout.check()
    items: list[Source] = []
    queries: list[Query] = []
    right: dict[str, str] = {}
    options: dict[str, tuple[str, ...]] = {}
    kinds: dict[str, str] = {}
    for kind, path in paths.items():
        entries = layout.json(path, dict)
        layout.count(kind, len(entries), COUNTS[kind])
        for key, entry in entries.items():
            where = f"entry {key}"
            right_one, wrong_one, file = (
                layout.get(entry, field, str, path, where) for field in ("caption", "negative_caption", "filename")
            )
            name = f"{kind}/{key}"
            captions = _shuffled(name, right_one, wrong_one)
            offered = [layout.words(path, len(items) + i, f"{name}/{i + 1}", text) for i, text in enumerate(captions)]
            items += offered
            queries.append(Query(layout.image(root / "val2017" / file, name)))
            right[name], options[name] = offered[captions.index(right_one)].id, tuple(o.id for o in offered)
            kinds[name] = kind
    qrels = relevant(right.items())
    groups = by_query(qrels, {name: f"{_family(kind)} by question" for name, kind in kinds.items()})
    groups |= by_query(qrels, kinds)
    families = dict.fromkeys(map(_family, COUNTS))
    return layout.finish(
        Dataset(
            "SugarCrepe",
            items,
            queries,
            qrels,
            ("success@1",),
            depth=2,
            groups=groups,
            candidates=options,
            notes=tuple(layout.notes),
            means={name: tuple(kind for kind in COUNTS if _family(kind) == name) for name in families},
        )
    )


def _family(kind: str) -> str:
    return kind.split("_")[0].capitalize()


def _shuffled(name: str, *texts: str) -> list[str]:
    """Return texts in a fixed order that does not depend on the given one."""
    return sorted(texts, key=lambda text: hashlib.sha256(f"{name}\0{text}".encode("utf-8", "replace")).digest())
