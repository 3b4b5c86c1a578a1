"""Build a benchmark without a download: a seeded script composes scenes from bundled drawings.

    full    5,000 scenes, 1,550 image and 450 text queries          small    500 scenes, 150 and 50

An image query shows one large drawing. A scene is relevant if it shows the same drawing with at least 35 % of its part
inside the frame uncovered. A text query is the drawing's label; every drawing of that label is relevant, and others of
its kind are junk, because their labels may be incomplete. Scenes that show too little of the right drawing are junk.
Queries ask only for drawings with a label, each in the same number of scenes; all others distract. Scenes are files
below `folder`, made once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.evaluate.groups import by_query
from looktwice.evaluate.scenes.compose import Scene, clutter, portrait
from looktwice.evaluate.scenes.cutouts import Cutout, Cutouts
from looktwice.evaluate.scenes.labels import Account
from looktwice.evaluate.trec import Qrels
from looktwice.files import write_whole

__all__ = ["FULL", "SMALL", "ScenesSize", "build"]

VERSION, SEED, SIDE = 1, 2026, 192
WORDINGS = ("{}", "a {}", "a picture of a {}")


@dataclass(frozen=True, slots=True)
class ScenesSize:
    """The numbers of a benchmark: scenes, of which `each` per target drawing; image and text queries."""

    name: str
    scenes: int
    each: int
    images: int
    words: int


FULL = ScenesSize("full", 5000, 8, 1550, 450)
SMALL = ScenesSize("small", 500, 2, 150, 50)


def build(folder: Path, size: ScenesSize = FULL, cutouts: Cutouts | None = None) -> Dataset:
    """Compose the benchmark below `folder`, unless it exists, and return it."""
    cutouts = cutouts or Cutouts.bundled()
    asked = [cutout for cutout in cutouts.all if cutout.label]
    others = [cutout for cutout in cutouts.all if not cutout.label]
    folder.mkdir(parents=True, exist_ok=True)
    scenes = _scenes(folder, size, asked, others, cutouts)
    account = Account(scenes, cutouts.all)
    layout = FileLayout(f"scenes ({size.name})", folder, "Remove the folder to have the scenes made again.")
    items = [layout.image(folder / "scenes" / name, name) for name in scenes]
    queries, of = [], {}
    for name, cutout, text in _queries(size, asked):
        of[name] = (cutout, text is not None)
        if text is None:
            queries.append(Query(layout.image(_portrait(folder, name, cutout, others, cutouts), name)))
        else:
            queries.append(Query(layout.words(folder / "words", len(queries), name, text)))
    qrels = {name: account.labels(*what) for name, what in of.items()}
    kinds = {name: "text queries" if words else "image queries" for name, (_, words) in of.items()}
    names = {name: "name met in training" if cutout.met else "name never met" for name, (cutout, _) in of.items()}
    words = {name: f"words, {names[name]}" for name, (_, asks) in of.items() if asks}
    groups = by_query(qrels, kinds) | by_query(qrels, names) | by_query(qrels, words)
    groups |= _another_artist(account, of) | account.groups(qrels, of)
    counts = f"{len(items):,} scenes, {len(queries):,} queries, {len(asked)} drawings asked for"
    notes = (f"version {VERSION}, seed {SEED}, {counts}",)
    return layout.finish(
        Dataset(layout.name, items, queries, qrels, ("mAP@50", "success@1", "oracle@50"), 50, groups, notes=notes)
    )


def _another_artist(account: Account, asked: Mapping[str, tuple[Cutout, bool]]) -> dict[str, Qrels]:
    """Return image queries against scenes that show the thing as others drew it; empty if no name has two drawings."""
    labels = {name: account.by_others(cutout) for name, (cutout, words) in asked.items() if not words}
    several = {name: found for name, found in labels.items() if any(grade > 0 for grade in found.values())}
    return {"another artist": several} if several else {}


def _scenes(
    folder: Path, size: ScenesSize, asked: list[Cutout], others: list[Cutout], cutouts: Cutouts
) -> dict[str, list[dict[str, Any]]]:
    """Write the missing scenes and return the account of all: which drawings, how large, how visible."""
    ledger = folder / "scenes.jsonl"
    (folder / "scenes").mkdir(exist_ok=True)
    stamp = {"version": VERSION, "seed": SEED, "size": size.name, "scenes": size.scenes, "cutouts": len(cutouts.all)}
    lines = ledger.read_text("utf-8").splitlines() if ledger.exists() else []
    if not lines or json.loads(lines[0]) != stamp or len(lines) != size.scenes + 1:
        made = (_written(folder, number, _scene(number, size, asked, others, cutouts)) for number in range(size.scenes))
        lines = [json.dumps(stamp), *made]
        write_whole(ledger, ("\n".join(lines) + "\n").encode())
    return {record["id"]: record["shows"] for record in map(json.loads, lines[1:])}


def _written(folder: Path, number: int, scene: Scene) -> str:
    """Write one scene and return its line of the account."""
    name = f"scene-{number:05d}.jpg"
    scene.image.save(folder / "scenes" / name, quality=88)
    shows = [{"id": p.cutout.id, "scale": round(p.scale, 5), "visible": round(p.visible, 5)} for p in scene.placed]
    return json.dumps({"id": name, "shows": shows})


def _scene(number: int, size: ScenesSize, asked: list[Cutout], others: list[Cutout], cutouts: Cutouts) -> Scene:
    """Compose scene `number`, independently of the others; the first `each` × |asked| show a target drawing."""
    rng = Random(f"scene {SEED} {number}")
    wanted = number < size.each * len(asked)
    target = asked[number % len(asked)] if wanted else rng.choice(others)
    return clutter(target, rng.choices(others, k=rng.randint(0, 6)), SIDE, rng, cutouts, others)


def _queries(size: ScenesSize, asked: list[Cutout]) -> Iterator[tuple[str, Cutout, str | None]]:
    """Yield query id, drawing, and text or None: every drawing and label equally often, as far as the numbers allow."""
    for number in range(size.images):
        yield f"p{number:04d}", asked[number % len(asked)], None
    labelled = [*{cutout.label: cutout for cutout in asked}.values()]
    for number in range(min(size.words, len(labelled) * len(WORDINGS))):
        cutout = labelled[number % len(labelled)]
        yield f"w{number:04d}", cutout, WORDINGS[number // len(labelled)].format(cutout.label)


def _portrait(folder: Path, name: str, cutout: Cutout, others: list[Cutout], cutouts: Cutouts) -> Path:
    path = folder / "queries" / f"{name}.jpg"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        scene = portrait(cutout, SIDE, Random(f"query {SEED} {name}"), cutouts, others)
        scene.image.save(data := BytesIO(), "JPEG", quality=88)
        write_whole(path, data.getvalue())
    return path
