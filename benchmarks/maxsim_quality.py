"""What each part of the middle look is worth, on scenes that no reported figure uses.

    python benchmarks/maxsim_quality.py                                          # minutes on one core
    python benchmarks/maxsim_quality.py --codecs opq16 late64+opq4 pq16          # codes in place of plain tokens
    python benchmarks/maxsim_quality.py --only zoomed small                      # some rows

Composes scenes of another seed that show drawings which no benchmark asks for, and asks with portraits of those
drawings. The first look's best are re-ordered by each variant; `change` is paired, with a 95 % bootstrap interval,
against the row "as built", or that of the same small objects. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from _smoke import finish, parse

from looktwice.codecs import Codec, parse_codec, train_codebook
from looktwice.codecs.pq import PQ
from looktwice.encode import load_encoder
from looktwice.evaluate import Qrels, Run
from looktwice.evaluate.bootstrap import difference
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.scenes import SIDE
from looktwice.evaluate.scenes.compose import clutter, portrait
from looktwice.evaluate.scenes.cutouts import Cutouts
from looktwice.evaluate.scenes.labels import Account
from looktwice.experiment.degrade import DEGRADATIONS
from looktwice.late_interaction import rarity, scores_of, unit_rows, weights_of
from looktwice.late_interaction.agreement import AGREEMENT
from looktwice.late_interaction.maxsim import POWER
from looktwice.score import TokenMaker, load_scorer
from looktwice.token_index.crops import CroppedTokens, tokens_of_view, view_layouts
from looktwice.token_index.matching import Opened, QueryTokens, best_matches, grids, joined, whole
from looktwice.token_index.zoom import rare_place, zoomed
from looktwice.types import Encoder, FloatArray, Item, VisualTokens

SEED, TARGETS, EACH, SAMPLE = 7, 100, 8, 64
SMALLER = DEGRADATIONS["small object"]
MEASURES = ("mAP@50", "success@1", "oracle@50")


@dataclass(frozen=True)
class Variant:
    """One way to compare: power of the rarities (0: all alike), strength of the vote, views, codec, the query's tokens.

    `side` is that of the query's object, as a share of what it was.
    """

    name: str = "as built"
    power: float = POWER
    strength: float = AGREEMENT
    crops: bool = True
    codec: str = "none"
    pooled: bool = False
    zoom: bool = False
    side: float = 1.0


def chosen(args: argparse.Namespace) -> list[Variant]:
    """Return the variants to measure: all, or "as built" and those whose names hold one of the words."""
    every = [Variant(), *variants(args.codecs)]
    return [one for one in every if one == Variant() or not args.only or any(word in one.name for word in args.only)]


def variants(codecs: Sequence[str]) -> Iterator[Variant]:
    yield from (Variant(f"power {power:g}", power=power) for power in (0.0, 1.0, 2.0, 4.0, 8.0))
    yield from (Variant(f"vote {strength:g}", strength=strength) for strength in (0.0, 0.25, 1.0))
    yield Variant("whole images", crops=False)
    yield Variant("query pooled 2 x 2", pooled=True)
    yield Variant("zoomed, too", zoom=True)
    for side in SMALLER.steps:
        yield Variant(f"small, {side:g}", side=side)
        yield Variant(f"small, {side:g}, zoomed", side=side, zoom=True)
    yield from (Variant(f"codec {codec}", codec=codec) for codec in codecs)


@dataclass(frozen=True)
class Scenes:
    """The tokens of scenes (with crops), their vectors and ids, the queries, their labels, and the models."""

    names: Sequence[str]
    tokens: Sequence[VisualTokens]
    vectors: FloatArray
    queries: Sequence[Item]
    qrels: Qrels
    encoder: Encoder
    maker: TokenMaker

    def small(self, side: float) -> list[Item]:
        """Return the queries with objects of this side."""
        return [query if side == 1 else smaller(query, side) for query in self.queries]


def smaller(query: Item, side: float) -> Item:
    assert query.image is not None
    return replace(query, image=SMALLER.apply(query.image, side, Random(query.id), []))


def composed(scenes: int, queries: int) -> Scenes:
    cutouts = Cutouts.bundled()
    others = [cutout for cutout in cutouts.all if not cutout.label]
    Random("tune split").shuffle(others)
    targets, rest = others[:TARGETS], others[TARGETS:]
    shows: dict[str, list[dict[str, Any]]] = {}
    images = []
    for n in range(scenes):
        rng = Random(f"tune {SEED} {n}")
        target = targets[n % TARGETS] if n < EACH * TARGETS else rng.choice(rest)
        scene = clutter(target, rng.choices(rest, k=rng.randint(0, 6)), SIDE, rng, cutouts, rest)
        shows[f"s{n}"] = [{"id": p.cutout.id, "scale": p.scale, "visible": p.visible} for p in scene.placed]
        images.append(Item(f"s{n}", image=scene.image.convert("RGB")))
    asked = [(f"q{n}", targets[n % TARGETS]) for n in range(queries)]
    portraits = [
        Item(name, image=portrait(one, SIDE, Random(f"tq {SEED} {n // TARGETS} {one.id}"), cutouts, rest).image)
        for n, (name, one) in enumerate(asked)
    ]
    account = Account(shows, cutouts.all)
    qrels = {name: account.labels(one, False) for name, one in asked}
    encoder = load_encoder("tiny-clip", dtype="float32")
    maker = load_scorer("tiny-vl", dtype="float32", prompt="object").tokens()
    assert maker is not None

    parts = [images[start : start + 32] for start in range(0, len(images), 32)]
    tokens = [one for part in parts for one in CroppedTokens(maker).visual_tokens(part)]
    vectors = np.concatenate([encoder.encode(part) for part in parts])
    return Scenes(list(shows), tokens, vectors, portraits, qrels, encoder, maker)


def opened(spec: str, tokens: Sequence[VisualTokens], crops: bool) -> tuple[Codec, list[Opened]]:
    """Return the codes of the scenes, as a matcher reads them."""
    tokens = tokens if crops else [tokens_of_view(one, -1) for one in tokens]
    codec = parse_codec(spec)
    if isinstance(codec.quantiser, PQ):
        rows = torch.cat([one.features.float() for one in tokens])
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:65536]]
        codec = codec.with_codebook(train_codebook(codec.quantiser, rows[None]))
    return codec, [(codec.open(codec.encode(one), one.layout), one.layout) for one in tokens]


def ranked(variant: Variant, scenes: Scenes, found: tuple[Codec, list[Opened]], coarse: FloatArray, depth: int) -> Run:
    codec, records = found
    views: Callable[..., Any] = view_layouts if variant.crops else whole
    sample = [records[place] for place in Random(SEED).sample(range(len(records)), min(SAMPLE, len(records)))]
    run: Run = {}
    for item, row in zip(scenes.small(variant.side), coarse, strict=True):
        near = np.argsort(-row, kind="stable")[:depth]
        query = compared(variant, item, scenes.maker, codec, sample)
        assert query.weights is not None
        best = best_matches(codec, query, [records[place] for place in near], views, variant.strength)
        scores = scores_of(best, query.weights).amax(1).tolist()
        run[item.id] = best_first([scenes.names[place] for place in near], scores)
    return run


def compared(variant: Variant, item: Item, maker: TokenMaker, codec: Codec, sample: Sequence[Opened]) -> QueryTokens:
    """Return the tokens of a query with their weights."""

    def seen(item: Item) -> tuple[QueryTokens, torch.Tensor]:
        (tokens,) = maker.visual_tokens([item])
        tokens = parse_codec("pool2").round_trip(tokens) if variant.pooled else tokens
        rows = unit_rows(tokens.features)
        rows = rows if codec.codebook is None else unit_rows(codec.codebook.rotate(rows, 0))
        query = QueryTokens(rows, grids(tokens.layout), None)
        return query, rarity(best_matches(codec, query, sample, strength=variant.strength).amax(1))

    query, rare = seen(item)
    place = rare_place(rare, query.grids[0]) if variant.zoom else None
    if place is not None:
        closer, others = seen(zoomed(item, place))
        query, rare = joined(query, closer), torch.cat([rare, others])
    return replace(query, weights=weights_of(rare, variant.power))


def best_first(names: Sequence[str], scores: Sequence[float]) -> list[tuple[str, float]]:
    return sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])


def rows(scenes: Scenes, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the first look's row, then one per variant."""
    coarse = {side: scenes.encoder.encode(scenes.small(side)) @ scenes.vectors.T for side in (1.0, *SMALLER.steps)}
    ids = [query.id for query in scenes.queries]
    first = {q: best_first(scenes.names, row.tolist()) for q, row in zip(ids, coarse[1.0], strict=True)}
    built: dict[float, dict[str, float]] = {}
    known: dict[tuple[str, bool], tuple[Codec, list[Opened]]] = {}
    for variant in (None, *chosen(args)):
        run = first
        if variant is not None:
            key = (variant.codec, variant.crops)
            known = {key: known.get(key) or opened(variant.codec, scenes.tokens, variant.crops)}
            run = ranked(variant, scenes, known[key], coarse[variant.side], args.depth)
        result = measure_group(run, scenes.qrels, MEASURES)
        values = result.per_query[MEASURES[0]]
        base = {} if variant is None else built.setdefault(variant.side, dict(values))
        change = difference(values, base) if variant is not None and values != base else None
        name = "first look" if variant is None else variant.name
        figures = {measure: round(result[measure], 4) for measure in MEASURES}
        yield {"row": name, **figures, "change": None if change is None else [round(x, 4) for x in change]}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What each part of the middle look is worth.")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=TARGETS)
    parser.add_argument("--depth", type=int, default=500, help="the first look's best that are re-ordered")
    parser.add_argument("--codecs", nargs="*", default=("opq16", "late64+opq4", "pq16"))
    parser.add_argument("--only", nargs="*", default=(), help="measure only rows with one of these words")
    args = parse(parser, argv, scenes=12, queries=2, depth=8, codecs=("int8",))
    torch.set_num_threads(1)
    found = []
    for row in rows(composed(args.scenes, args.queries), args):
        found.append(row)
        change = "" if row["change"] is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["change"])
        print(f"{row['row']:20}", *(f"{row[measure]:.3f}" for measure in MEASURES), change, flush=True)
    finish("maxsim_quality", args, {"rows": found, "scenes": args.scenes, "queries": args.queries})


if __name__ == "__main__":
    main()
