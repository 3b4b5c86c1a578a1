"""Compose harder word queries for the demo: clip art of names that the bundled models were trained on, or not.

The gallery's own text queries are names that training has met, drawn by an emoji artist whom it has not. Clip art is
drawn by many hands, and its labels are looser. The drawings are the bundled cut-outs of the Open Clip Art Library, none
of which was trained on; `met` marks names that another drawing in training goes by. Some names have drawings by several
artists: a query shows one, and scenes that show the others are relevant.

    FOLDER/scenes/word-000.jpg      FOLDER/queries/a00.jpg      made once, from one seed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from looktwice.evaluate.scenes.compose import clutter, portrait
from looktwice.evaluate.scenes.cutouts import Cutout, Cutouts
from looktwice.evaluate.scenes.labels import Account
from looktwice.files import write_whole
from looktwice.sources import images
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image

    from looktwice.evaluate import Qrels

SEED, SIDE, EACH = 2026, 192, 2
MET, NEVER, ARTIST = "clip art, name met", "clip art, name never met", "another artist"
ASKED = {MET: 40, NEVER: 20}


@dataclass(frozen=True)
class WordQueries:
    """Composed scenes with queries, labels, and the kind of each query by its id."""

    scenes: Path
    queries: tuple[Item, ...]
    qrels: Qrels
    kinds: Mapping[str, str]


def word_queries(folder: Path) -> WordQueries:
    """Compose what is missing below `folder`, and return all of it."""
    cutouts = Cutouts.bundled()
    grounds = [cutout for cutout in cutouts.all if not cutout.label]
    met, never = (_named(cutouts.all, kind) for kind in ASKED)
    asked = [*met, *never]
    shown = [cutout for cutout in cutouts.all if cutout.label in {one.label for one in asked}]
    account = Account(dict(_scenes(folder / "scenes", shown, grounds, cutouts)), cutouts.all)
    queries, qrels, kinds = list[Item](), dict[str, dict[str, int]](), dict[str, str]()
    for number, cutout in enumerate(asked):
        name = f"clip-art-{number:02d}"
        queries.append(Item(name, text=cutout.label))
        qrels[name], kinds[name] = account.labels(cutout, True), MET if cutout in met else NEVER
    for number, cutout in enumerate(_several(met, shown)):
        name, drawn = f"another-artist-{number:02d}", f"a{number:02d}"
        path = _kept(folder / "queries" / f"{drawn}.jpg", lambda: _portrait(drawn, cutout, grounds, cutouts))  # noqa: B023
        data = path.read_bytes()
        queries.append(Item(name, image=images.load(data)[0], uri=str(path)))
        qrels[name], kinds[name] = account.by_others(cutout), ARTIST
    return WordQueries(folder / "scenes", tuple(queries), qrels, kinds)


def _named(cutouts: Sequence[Cutout], kind: str) -> list[Cutout]:
    """Return one drawing for each of ASKED names that training has met, or has not; names of several drawings first."""
    named: dict[str, list[Cutout]] = {}
    for cutout in cutouts:
        if cutout.label and cutout.met == (kind == MET):
            named.setdefault(cutout.label, []).append(cutout)
    names = sorted(named)
    Random(SEED).shuffle(names)
    chosen = sorted(names, key=lambda name: len(named[name]) < 2)[: ASKED[kind]]
    return [named[name][0] for name in sorted(chosen)]


def _several(asked: Sequence[Cutout], shown: Sequence[Cutout]) -> list[Cutout]:
    """Return the drawings whose name other drawings go by, too."""
    return [one for one in asked if sum(other.label == one.label for other in shown) > 1]


def _scenes(
    folder: Path, shown: Sequence[Cutout], grounds: list[Cutout], cutouts: Cutouts
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Compose EACH scenes of every drawing; yield their names and what they show."""
    for number, cutout in enumerate([cutout for cutout in shown for _ in range(EACH)]):
        name = f"word-{number:03d}.jpg"
        rng = Random(f"word {SEED} {number}")
        scene = clutter(cutout, rng.choices(grounds, k=rng.randint(0, 4)), SIDE, rng, cutouts, grounds)
        _kept(folder / name, lambda: scene.image)  # noqa: B023
        yield name, [{"id": p.cutout.id, "scale": p.scale, "visible": p.visible} for p in scene.placed]


def _portrait(name: str, cutout: Cutout, grounds: list[Cutout], cutouts: Cutouts) -> Image:
    return portrait(cutout, SIDE, Random(f"artist {SEED} {name}"), cutouts, grounds).image


def _kept(path: Path, make: Any) -> Path:
    """Write an image unless it is there already; return its path."""
    from io import BytesIO

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(data := BytesIO(), "JPEG", quality=88)
        write_whole(path, data.getvalue())
    return path
