"""List the bundled drawings that look almost like one in training, by the teacher's distance.

    python training/tiny/near_copies.py --data DATA                     # after teacher.py
    python training/tiny/near_copies.py --data DATA --run eval-scenes   # and measures of that run without them

The split is by name, so "traffic light green" may be held out while "traffic light red" is in training. The teacher
(EfficientNet-Lite0) looks at both; features are standardised over the training drawings and compared by cosine. To
judge a cosine, it is also printed for held-out drawings after a mild change, and for other artists' drawings of the
same thing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from scenes import Sprite, Sprites
from teacher import features

from looktwice.evaluate import read_run
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.scenes import FULL, SMALL, build
from looktwice.evaluate.scenes.cutouts import Cutout, Cutouts

LEVELS = (0.75, 0.65)
CHANGED = 120
MEASURES = ("mAP@50", "success@1")
RUNS = ("shortlist", "middle-look", "second-look")


class Known:
    """The training drawings as the teacher sees them."""

    def __init__(self, data: Path) -> None:
        train, kept = Sprites(data, "train"), data / "features.npy"
        self.labels = [sprite.label for sprite in train.all]
        seen = (np.load(kept) if kept.exists() else features(train))[[sprite.row for sprite in train.all]]
        self._middle, self._spread = seen.mean(0), seen.std(0).clip(min=0.05)
        self._rows = self.unit(seen)

    def unit(self, rows: np.ndarray) -> np.ndarray:
        """Features [n, 1280], standardised over training, as unit vectors."""
        rows = (rows - self._middle) / self._spread
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def nearest(self, pictures: list[Image.Image]) -> tuple[np.ndarray, list[str]]:
        """(cosine [n] to the nearest training drawing, that drawing's label)"""
        similar = self.unit(looked(pictures)) @ self._rows.T
        return similar.max(1), [self.labels[row] for row in similar.argmax(1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="a folder of `looktwice eval run scenes`")
    args = parser.parse_args()
    known, heldout, cutouts = Known(args.data), Sprites(args.data, "heldout"), Cutouts.bundled()
    judge(heldout, known.unit)
    asked = [cutout for cutout in cutouts.all if cutout.label]
    nearest, labels = known.nearest([cutouts.image(cutout.id) for cutout in asked])
    for n in np.argsort(-nearest):
        if nearest[n] >= min(LEVELS):
            print(f"{nearest[n]:.2f}  {asked[n].id}  {asked[n].label}  ~  {labels[n]}")
    if args.run:
        measure(args.run, {cutout.id: float(one) for cutout, one in zip(asked, nearest, strict=True)}, asked)


def looked(pictures: list[Image.Image]) -> np.ndarray:
    """The teacher's features of drawings from anywhere [n, 1280]."""
    rows = [Sprite(row, "", "", (), "", "") for row in range(len(pictures))]
    return features(SimpleNamespace(all=rows, drawings=len(rows), picture=pictures.__getitem__))  # type: ignore[arg-type]


def judge(heldout: Sprites, unit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Print cosines of pairs of which is known whether they are one drawing."""
    some = Random(0).sample(heldout.all, min(CHANGED, len(heldout.all)))
    own = unit(looked([heldout.picture(sprite.row) for sprite in some]))
    for name, change in CHANGES.items():
        changed = unit(looked([change(heldout.picture(sprite.row)) for sprite in some]))
        tell(f"after a change: {name}", (own * changed).sum(1))
    by_name: dict[str, dict[str, Sprite]] = {}
    for sprite in heldout.all:
        by_name.setdefault(sprite.object, {})[sprite.vendor] = sprite
    both = [(them["google"], them["twitter"]) for them in by_name.values() if {"google", "twitter"} <= them.keys()]
    first, second = (unit(looked([heldout.picture(pair[i].row) for pair in both])) for i in (0, 1))
    tell("by another artist", (first * second).sum(1))


def hue(image: Image.Image) -> Image.Image:
    """The drawing in other colours."""
    parts = [*image.convert("RGB").convert("HSV").split()]
    turned = Image.merge("HSV", [parts[0].point(lambda h: (h + 64) % 256), *parts[1:]]).convert("RGB")
    turned.putalpha(image.getchannel("A"))
    return turned


def cut(image: Image.Image) -> Image.Image:
    """The drawing without its lowest fifth."""
    return image.crop((0, 0, image.width, round(0.8 * image.height)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "other colours": hue,
    "turned by 12°": lambda image: image.rotate(12, Image.Resampling.BILINEAR, expand=True),
    "its lowest fifth cut off": cut,
}


def tell(name: str, cosines: np.ndarray) -> None:
    shares = ", ".join(f"{(cosines >= level).mean():.0%} from {level:g}" for level in LEVELS)
    print(f"{name} ({len(cosines)} pairs): median {np.median(cosines):.2f}; {shares}")


def measure(folder: Path, nearest: dict[str, float], asked: list[Cutout]) -> None:
    """Print the measures of a run's image queries, all and without near-copies."""
    size = SMALL if "small" in json.loads((folder / "settings.json").read_text())["dataset"] else FULL
    labels = build(folder / "dataset", size).groups["image queries"]
    runs = {name: read_run(path) for name in RUNS if (path := folder / f"{name}.trec").exists()}
    for name, queries in groups([*labels], nearest, asked):
        some: dict[str, Any] = {query: labels[query] for query in queries}
        for title, run in runs.items():
            found = measure_group({query: run.get(query, []) for query in some}, some, MEASURES)
            told = ((m, found[m], found.interval(m)) for m in MEASURES)
            print(f"{name} ({len(some)}), {title}:", *(f"{m} {x:.3f} [{i.low:.3f}, {i.high:.3f}]" for m, x, i in told))


def groups(queries: list[str], nearest: dict[str, float], asked: list[Cutout]) -> Iterator[tuple[str, list[str]]]:
    # query p0190 asks for the drawing 190 modulo their number, as `looktwice.evaluate.scenes` deals them out
    of = {query: nearest[asked[int(query[1:]) % len(asked)].id] for query in queries}
    yield "all", queries
    for level in LEVELS:
        yield f"below {level:g}", [query for query in queries if of[query] < level]


if __name__ == "__main__":
    main()
