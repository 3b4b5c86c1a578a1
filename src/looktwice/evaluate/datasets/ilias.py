"""Read ILIAS (CVPR 2025): instance retrieval among 100 million distractors.

    ROOT/ilias_core/OBJECT/query/Q000_00.jpg, T000.txt      ROOT/ilias_core/OBJECT/pos/P000_00.jpg
    ROOT/image_ids/image_query_ids.txt, text_query_ids.txt, positive_ids.txt (id,scale,clutter)
    ROOT/misc/taxonomy.json, of the repository (optional): {category: {subcategory: {kind: [OBJECT, …]}}}
    ROOT/yfcc100m/*.tar     or, for mini-ILIAS,     ROOT/mini_ilias/mini_ilias_yfcc100m-000000.tar … 000044.tar

Layout from the ILIAS repository (download/README.md, download_ilias.sh, evaluation/src/dataset.py); the folder name
`mini_ilias` is ours, since the hub data set only holds the archives. The object's name before the first slash of an id
joins queries and positives. Distractors get the ids `shard.tar/key`, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, by_label
from looktwice.evaluate.groups import ILIAS_CLUTTER, ILIAS_SCALE, by_query, by_value
from looktwice.evaluate.trec import Qrels
from looktwice.sources import Source, Unreadable, scan

FETCH = "download_ilias.sh of github.com/ilias-vrg/ilias fetches it; mini-ILIAS is in the hub dataset vrg-prague/ilias."
COUNTS = {"image queries": 1232, "text queries": 1000, "positives": 4715, "mini shards": 45}
DISTRACTORS = {"full": ("yfcc100m", "*.tar"), "mini": ("mini_ilias", "mini_ilias_yfcc100m-*.tar"), "core": None}


def read(root: Path, distractors: str = "mini", queries: str = "image", partial: bool = False) -> Dataset:
    """Read ILIAS with `distractors` full, mini or core (none at all) and image or text `queries`."""
    layout = FileLayout(f"ILIAS ({distractors})", root, FETCH, partial)
    listed = layout.file("image_ids", f"{queries}_query_ids.txt")
    positives_file = layout.file("image_ids", "positive_ids.txt")
    core = layout.folder("ilias_core")
    shards = _shards(layout, DISTRACTORS[distractors])
    layout.check()
    asked = [_query(layout, core, row[0].strip()) for row in layout.columns(listed, ",", 1)]
    rows = list(layout.columns(positives_file, ",", 3))
    positives = [layout.image(core / row[0], row[0]) for row in rows]
    layout.count(f"{queries} queries", len(asked), COUNTS[f"{queries} queries"])
    layout.count("positives", len(positives), COUNTS["positives"])
    if distractors == "mini":
        layout.count("mini shards", len(shards), COUNTS["mini shards"])
    of = by_label((source.id, source.id.split("/")[0]) for source in positives)
    qrels = {query.id: dict.fromkeys(of.get(query.id.split("/")[0], []), 1) for query in asked}
    values = [_values(layout, positives_file, row) for row in rows]
    scale, clutter = ({name: pair[i] for name, *pair in values} for i in (0, 1))
    groups = by_value(qrels, scale, ILIAS_SCALE, "scale") | by_value(qrels, clutter, ILIAS_CLUTTER, "clutter")
    groups |= _categories(layout, qrels)
    return layout.finish(
        Dataset(
            layout.name,
            _Items(positives, shards),
            asked,
            qrels,
            ("mAP@1k", "oracle@1k", "success@1"),
            depth=1000,
            groups=groups,
            prompt="object" if queries == "image" else "auto",
            notes=tuple(layout.notes),
        )
    )


class _Items:
    """The positives, then every image of the shards; iterate it as often as needed."""

    def __init__(self, positives: list[Source], shards: list[Path]) -> None:
        self._positives = positives
        self._shards: Iterable[Source | Unreadable] = scan(shards) if shards else []

    def __iter__(self) -> Iterator[Source | Unreadable]:
        return chain(self._positives, self._shards)


def _shards(layout: FileLayout, where: tuple[str, str] | None) -> list[Path]:
    if where is None:
        layout.notes.append("no distractors: not comparable with any published figure")
        return []
    shards = sorted(layout.folder(where[0]).glob(where[1]))
    if not shards:
        layout.missing("/".join(where))
    layout.notes.append(f"shards of distractors: {len(shards):,}")
    return shards


def _query(layout: FileLayout, core: Path, name: str) -> Query:
    if not name.endswith(".txt"):
        return Query(layout.image(core / name, name))
    if not (core / name).is_file():
        layout.missing(f"ilias_core/{name}")
        return Query(layout.words(core / name, 0, name, "-"))
    return Query(layout.words(core / name, 0, name, (core / name).read_text("utf-8", "replace")))


def _categories(layout: FileLayout, qrels: Qrels) -> dict[str, Qrels]:
    """Split queries by category and by subcategory of their object; return no groups without the file."""
    path = layout.root / "misc" / "taxonomy.json"
    if not path.is_file():
        layout.notes.append("no misc/taxonomy.json: no figures by category")
        return {}
    category: dict[str, str] = {}
    subcategory: dict[str, str] = {}
    for name, parts in layout.json(path, dict).items():
        for part in layout.get({"": parts}, "", dict, path, name):
            for kind in layout.get(parts, part, dict, path, name):
                for thing in layout.get(parts[part], kind, list, path, f"{name}, {part}"):
                    category[str(thing)], subcategory[str(thing)] = f"category {name}", f"category {name}-{part}"
    objects = {query: query.split("/")[0] for query in qrels}
    if lacking := sum(thing not in category for thing in objects.values()):
        layout.notes.append(f"queries whose object is in no category: {lacking:,}")
    pairs = [
        {query: names[thing] for query, thing in objects.items() if thing in names} for names in (category, subcategory)
    ]
    return by_query(qrels, pairs[0]) | by_query(qrels, pairs[1])


def _values(layout: FileLayout, path: Path, row: list[str]) -> tuple[str, float, float]:
    try:
        return row[0], float(row[1]), float(row[2])
    except ValueError:
        layout.broken(path, row[0], "numbers for scale and clutter", row[1:3])
