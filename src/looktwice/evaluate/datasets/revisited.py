"""Read Revisited Oxford and Paris (CVPR 2018), optionally with the million distractors.

    ROOT/roxford5k/gnd_roxford5k.pkl     imlist, qimlist, gnd: [{easy, hard, junk: positions from 0, bbx: 4 numbers}]
    ROOT/roxford5k/jpg/NAME.jpg          ROOT/revisitop1m/revisitop1m.txt, ROOT/revisitop1m/jpg/NAME

Layout from the revisitop repository. Queries are cropped to their box. The pickle is read without running it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.evaluate.datasets.unpickle import unpickle
from looktwice.evaluate.groups import EASY, HARD, JUNK, revisited
from looktwice.sources import Source

FETCH = "download.py of github.com/filipradenovic/revisitop fetches images, labels and distractors."
COUNTS = {"roxford5k": (4993, 70), "rparis6k": (6322, 70), "revisitop1m": (1001001, 0)}
GRADES = {"easy": EASY, "hard": HARD, "junk": JUNK}


def read(root: Path, which: str = "roxford5k", million: bool = False, partial: bool = False) -> Dataset:
    """Read roxford5k or rparis6k; the labels are Medium, and Easy, Medium and Hard are groups."""
    layout = FileLayout(which + ("+1m" if million else ""), root, FETCH, partial)
    path, folder = layout.file(which, f"gnd_{which}.pkl"), layout.folder(which, "jpg")
    extra = (layout.file("revisitop1m", "revisitop1m.txt"), layout.folder("revisitop1m", "jpg")) if million else None
    layout.check()
    labels = unpickle(path)
    names, asked = (_names(layout, path, labels, key) for key in ("imlist", "qimlist"))
    truth = layout.get(labels, "gnd", list, path, "the top")
    items = [layout.image(folder / f"{name}.jpg", name) for name in names]
    layout.count("images", len(items), COUNTS[which][0])
    layout.count("queries", len(asked), COUNTS[which][1])
    if len(truth) != len(asked):
        layout.broken(path, "gnd", f"{len(asked)} entries", len(truth))
    queries = [
        Query(layout.image(folder / f"{name}.jpg", name), _box(layout, path, entry, name))
        for name, entry in zip(asked, truth, strict=True)
    ]
    grades = {name: _grades(layout, path, entry, names, name) for name, entry in zip(asked, truth, strict=True)}
    items += _distractors(layout, *extra) if extra else []
    groups = revisited(grades)
    return layout.finish(
        Dataset(
            layout.name,
            items,
            queries,
            groups["Medium"],
            ("trapAP", "mAP@100", "success@1"),
            depth=len(items) if len(items) < 10_000 else 1000,
            groups=groups,
            prompt="landmark",
            notes=(*layout.notes, "depth: trapAP reads the whole list; items below the depth count as not found"),
        )
    )


def _names(layout: FileLayout, path: Path, labels: Any, key: str) -> list[str]:
    names = layout.get(labels, key, list, path, "the top")
    if not all(isinstance(name, str) and "/" not in name for name in names):
        layout.broken(path, key, "names of images", names)
    return names


def _grades(layout: FileLayout, path: Path, entry: Any, names: list[str], query: str) -> dict[str, int]:
    grades: dict[str, int] = {}
    for key, grade in GRADES.items():
        rows = np.asarray(entry.get(key, ()) if isinstance(entry, dict) else None, dtype=object).ravel()
        if not all(isinstance(i, int | np.integer) and 0 <= i < len(names) for i in rows):
            layout.broken(path, f"gnd of {query}", f"{key!r} to hold positions below {len(names)}", rows.tolist())
        grades |= {names[i]: grade for i in rows}
    return grades


def _box(layout: FileLayout, path: Path, entry: Any, query: str) -> tuple[float, float, float, float]:
    box = np.asarray(entry.get("bbx") if isinstance(entry, dict) else None, dtype=object).ravel()
    numbers = [float(edge) for edge in box if isinstance(edge, int | float | np.number)]
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        layout.broken(path, f"gnd of {query}", "'bbx' to be left, top, right, bottom", box.tolist())
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _distractors(layout: FileLayout, path: Path, folder: Path) -> list[Source]:
    names = [row[0].strip() for row in layout.columns(path, "\n", 1)]
    layout.count("distractors", len(names), COUNTS["revisitop1m"][0])
    return [layout.image(folder / name, f"revisitop1m/{name}") for name in names]
