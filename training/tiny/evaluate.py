"""Measure the bundled models on held-out objects, through looktwice itself.

    python training/tiny/evaluate.py --data DATA [--mllm tiny-vl] [--encoder tiny-clip] [--choose]

Prints one markdown table and, last, one JSON line. No object in it is in any training picture, in any vendor's drawing
or under another drawing's name. The rows "by an artist never met" are of names that training has met, drawn by others.
With --choose it measures the objects to choose by: whatever is decided by them, the held-out ones stay unseen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scenes import Scene, Sprite, Sprites, clutter, portrait
from scipy.stats import kendalltau

from looktwice.encode import load_encoder
from looktwice.evaluate.measures import measure
from looktwice.rank import Fusion, fuse
from looktwice.score import Scorer, load_scorer
from looktwice.types import Candidate, Encoder, Item

SIDE, SHORTLIST = 192, 50
HELD_OUT, TO_CHOOSE_BY = ("heldout", "artist"), ("validation", "artist validation")
MEASURES = ["mAP@50", "success@1", "oracle@50"]


def auc(positive: list[float], negative: list[float]) -> float:
    """Chance that a positive pair scores above a negative one; ties count half."""
    p, n = np.array(positive)[:, None], np.array(negative)[None]
    return float((p > n).mean() + 0.5 * (p == n).mean())


def scene_of(target: Sprite, asked: Sprite, others: int, level: float, sprites: Sprites, rng: Random) -> Scene:
    """Clutter that shows `target`, and nothing of what is asked for unless that is the target."""
    while True:
        scene = clutter([target], others, SIDE, rng, sprites, level)
        if target.object == asked.object or not scene.shows(asked, by_name=True, visible=0.0):
            return scene


def pair_auc(scorer: Scorer, sprites: Sprites, n: int, hard: bool, other_vendor: bool = False) -> tuple[float, float]:
    """(AUC against random negatives, AUC against look-alikes of the same group) over n queries."""
    rng, scores = Random(f"pairs {hard} {other_vendor}"), ([], [], [])  # type: ignore[var-annotated]
    drawn_twice = [s for s in sprites.all if {o.vendor for o in sprites.by_object[s.object]} - {s.vendor}]
    for i in range(n):
        sprite = rng.choice(drawn_twice if other_vendor else sprites.all)
        target = (
            rng.choice([o for o in sprites.by_object[sprite.object] if o.vendor != sprite.vendor])
            if other_vendor
            else sprite
        )
        unlike = rng.choice([s for s in sprites.all if s.object != sprite.object])
        level, others = (rng.uniform(0.6, 1.0), rng.randint(3, 7)) if hard else (0.0, 0)
        shown = [target, unlike, sprites.lookalike(sprite, rng)]
        made = [scene_of(s, sprite, others, level, sprites, rng) for s in shown]
        query = Item(f"q{i}", portrait(sprite, SIDE, rng, sprites).image)
        p = scorer.score(query, [Item(f"{i}-{j}", scene.image) for j, scene in enumerate(made)]).p
        for column, value in zip(scores, p.tolist(), strict=True):
            column.append(value)
    return auc(scores[0], scores[1]), auc(scores[0], scores[2])


def ranking(
    encoder: Encoder, scorer: Scorer, sprites: Sprites, objects: list[Sprite], each: int, total: int, words: bool
) -> dict[str, dict[str, float]]:
    """mAP@50, success@1 and oracle@50 of the coarse shortlist and of two ways of fusing the second look."""
    rng = Random(f"ranking {words}")
    scenes = []
    for n in range(total):
        target = objects[n % len(objects)] if n < each * len(objects) else rng.choice(sprites.all)
        level = rng.uniform(0.1, 0.9)
        scenes.append(clutter([target], rng.randint(0, 1 + round(6 * level)), SIDE, rng, sprites, level))
    whose = objects[0].row  # a scorer keeps what it has read by this hash
    items = [Item(f"s{n:04d}", scene.image, sha256=f"{whose}-{words}-{n}") for n, scene in enumerate(scenes)]
    vectors = np.concatenate([encoder.encode(items[i : i + 50]) for i in range(0, total, 50)])
    runs: dict[str, dict[str, list[tuple[str, float]]]] = {
        "coarse": {},
        "second look, 0.5": {},
        "second look, p-only": {},
    }
    qrels: dict[str, dict[str, int]] = {}
    for n, sprite in enumerate(objects):
        query = Item(
            f"q{n}", None if words else portrait(sprite, SIDE, rng, sprites).image, sprite.label if words else None
        )
        cosine = (vectors @ encoder.encode([query])[0]).astype(float)
        order = np.argsort(-cosine, kind="stable")[:SHORTLIST]
        shortlist = [Candidate(items[i].id, float(cosine[i])) for i in order]
        scores = scorer.score(query, [items[i] for i in order])
        runs["coarse"][query.id] = [(c.id, c.coarse) for c in shortlist]
        for name in ("0.5", "p-only"):
            hits = fuse(shortlist, scores, Fusion.parse(name))
            runs[f"second look, {name}"][query.id] = [(h.id, float(SHORTLIST - h.rank)) for h in hits]
        qrels[query.id] = {item.id: 1 for item, scene in zip(items, scenes, strict=True) if scene.shows(sprite, words)}
    measured = {name: measure(run, qrels, MEASURES) for name, run in runs.items()}
    return {name: {m: result[m] for m in MEASURES} for name, result in measured.items()}


def grid(scorer: Scorer, objects: list[Sprite], portraits: list[Item]) -> np.ndarray:
    """[names, portraits] The score of every name for every portrait."""
    return np.stack([scorer.score(Item(f"t{s.row}", text=s.label), portraits).p for s in objects])


def own_auc(scores: np.ndarray) -> float:
    """AUC of the diagonal of a grid, each name's own portrait, against all else."""
    own = np.eye(len(scores), dtype=bool)
    return auc(scores[own].tolist(), scores[~own].tolist())


def words_about_portraits(mllm: str, sprites: Sprites, objects: list[Sprite]) -> dict[str, float]:
    """AUC of telling a name's own portrait from all others, words before and after the image; and whether a written
    number orders the first 20 as that p does (Kendall's τ-b, with the written numbers' own AUC)."""
    rng = Random("portraits")
    items = [Item(f"p{s.row}", portrait(s, SIDE, rng, sprites).image, sha256=f"portrait-{s.row}") for s in objects]
    few, prompts = slice(0, 20), ("match-query-first", "match")
    scores = {prompt: grid(load_scorer(mllm, prompt=prompt), objects, items) for prompt in prompts}
    written = grid(load_scorer(mllm, prompt="score", score_mode="written"), objects[few], items[few])
    tau = kendalltau(written.ravel(), scores["match-query-first"][few, few].ravel()).statistic
    aucs = {f"{name} AUC": own_auc(p) for name, p in {**scores, "written": written}.items()}
    return {**aucs, "written tau": float(np.nan_to_num(tau))}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pairs_per_second(scorer: Scorer, sprites: Sprites) -> float:
    """One query against 100 fresh pictures, the vision tower included."""
    rng = Random("speed")
    fresh = [
        Item(f"x{n}", portrait(s, SIDE, rng, sprites).image) for n, s in enumerate(rng.choices(sprites.all, k=102))
    ]
    scorer.score(fresh[0], fresh[1:2])
    return 100 / timed(lambda: scorer.score(fresh[1], fresh[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mllm", default="tiny-vl")
    parser.add_argument("--encoder", default="tiny-clip")
    parser.add_argument("--pairs", type=int, default=400, help="queries per row of pairs")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=1000, help="candidates of a ranking")
    parser.add_argument("--choose", action="store_true", help="the validation objects in place of the held-out ones")
    args = parser.parse_args()
    sprites, artist = (Sprites(args.data, split) for split in (TO_CHOOSE_BY if args.choose else HELD_OUT))
    encoder = load_encoder(args.encoder)
    look, match = (load_scorer(args.mllm, prompt=p) for p in ("object", "match-query-first"))
    rng = Random("objects")
    drawings = rng.sample(sprites.all, args.queries)
    nameable = sorted(
        o for o, them in sprites.by_object.items() if any(s.vendor == "google" for s in them) and "flag" not in o
    )
    names = [next(s for s in sprites.by_object[o] if s.vendor == "google") for o in rng.sample(nameable, args.queries)]
    drawn = rng.sample([s for s in artist.all if "flag" not in s.object], args.queries)
    rankings = {
        "": (sprites, drawings, names),
        " by an artist never met": (artist, drawn, drawn),
    }
    result: dict[str, Any] = {
        "object, one large object (AUC random / look-alike)": pair_auc(look, sprites, args.pairs, False),
        "object, clutter (AUC random / look-alike)": pair_auc(look, sprites, args.pairs, True),
        "object, another vendor's drawing (AUC random / look-alike)": pair_auc(look, sprites, args.pairs, False, True),
    }
    for whose, (drawn_by, shown, said) in rankings.items():
        title = f"{args.scenes:,} scenes{whose}"
        result[f"picture -> {title}"] = ranking(encoder, look, drawn_by, shown, 5, args.scenes, False)
        result[f"words -> {title}"] = ranking(encoder, match, drawn_by, said, 3, args.scenes, True)
    result["names -> portraits by an artist never met"] = words_about_portraits(args.mllm, artist, drawn)
    result["pairs/s"] = round(pairs_per_second(look, sprites), 1)
    print("| what | measured |\n|---|---|")
    for name, value in result.items():
        print(f"| {name} | {json.dumps(value, default=lambda x: round(x, 4))} |")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
