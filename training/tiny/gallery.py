"""Make the demo's gallery: scenes, queries in pictures and in words, labels that follow from how scenes were composed.

Pictures ask for drawings of held-out objects. Words ask for names that training has met, in drawings by an artist that
it has not, near-copies of training drawings left out. Nothing is picked by hand or by score; one seed decides.

    python training/tiny/gallery.py --data DATA --out src/looktwice/assets/tiny/gallery
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from near_copies import LEVELS, Known
from scenes import Scene, Sprite, Sprites, clutter, portrait

SIDE = 192
LICENCE = """# Licences of the gallery

Scenes are composed by `training/tiny/gallery.py`. The drawings in them come from Noto Emoji (Apache-2.0, Google),
Twemoji (CC BY 4.0, Twitter and contributors), EmojiOne 2.3 (CC BY 4.0), FxEmojis (Apache-2.0, Mozilla), Flat Color
Icons (MIT, Icons8) and the Open Clip Art Library (CC0). They were scaled, turned, covered and recoloured.
`credits.jsonl` names every drawing of every scene.
"""


def compose(objects: list[Sprite], scenes_each: int, sprites: Sprites, rng: Random) -> list[Scene]:
    """Every object in `scenes_each` scenes, alone or in clutter."""
    made = []
    for sprite in objects:
        for _ in range(scenes_each):
            hard = rng.uniform(0.1, 0.9)
            made.append(clutter([sprite], rng.randint(0, 1 + round(6 * hard)), SIDE, rng, sprites, hard))
    return made


def nameable(data: Path, sprites: Sprites) -> list[Sprite]:
    """One drawing of each thing but flags, none of them nearly a copy of a training drawing."""
    some = [them[0] for name, them in sorted(sprites.by_object.items()) if "flag" not in name]
    nearest, _ = Known(data).nearest([sprites.picture(sprite.row) for sprite in some])
    return [sprite for sprite, likeness in zip(some, nearest, strict=True) if likeness < max(LEVELS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=40, help="to ask for in pictures, and as many in words")
    parser.add_argument("--scenes-each", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2026)
    args = parser.parse_args()
    sprites, artist, rng = Sprites(args.data, "heldout"), Sprites(args.data, "artist"), Random(args.seed)
    drawings = rng.sample(sprites.all, args.objects)
    named = rng.sample(nameable(args.data, artist), args.objects)
    scenes = compose(drawings, args.scenes_each, sprites, rng) + compose(named, args.scenes_each, artist, rng)
    rng.shuffle(scenes)
    for folder in ("images", "queries"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    credits, queries, qrels = [], [], []
    for number, scene in enumerate(scenes):
        name = f"scene-{number:03d}.jpg"
        scene.image.save(args.out / "images" / name, quality=88)
        shown = [{"label": p.sprite.label, "vendor": p.sprite.vendor} for p in scene.placed]
        credits.append({"id": name, "shows": shown})
    asked = [(f"p{i:02d}", s, False) for i, s in enumerate(drawings)] + [
        (f"w{i:02d}", s, True) for i, s in enumerate(named)
    ]
    for qid, sprite, by_name in asked:
        if by_name:
            queries.append({"id": qid, "text": sprite.label})
        else:
            portrait(sprite, SIDE, rng, sprites).image.save(args.out / "queries" / f"{qid}.jpg", quality=88)
            queries.append({"id": qid, "image": f"queries/{qid}.jpg"})
            credits.append({"id": f"queries/{qid}.jpg", "shows": [{"label": sprite.label, "vendor": sprite.vendor}]})
        qrels += [f"{qid} 0 scene-{n:03d}.jpg 1" for n, scene in enumerate(scenes) if scene.shows(sprite, by_name)]
    (args.out / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in queries))
    (args.out / "credits.jsonl").write_text("".join(json.dumps(c) + "\n" for c in credits))
    (args.out / "qrels.txt").write_text("\n".join(qrels) + "\n")
    (args.out / "LICENCE.md").write_text(LICENCE)


if __name__ == "__main__":
    main()
