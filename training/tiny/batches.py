"""Batches of labelled pictures and pairs. Everything is drawn from one seed and the step number, so a stop loses
nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from PIL import Image
from scenes import COLOURS, VISIBLE, Scene, Sprite, Sprites, clutter, portrait
from torch import Tensor
from wordings import answer, draw

from looktwice.score.prompting.built_in import Prompt
from looktwice.types import Item

LARGER = 0.35  # share of batches drawn at twice the model's size and reduced, as pictures reach it in use
KIN = 0.1  # share of the portraits, where several artists drew the thing, that are not by the scene's
HARD, FAMILY = 0.3, 0.25  # shares of negatives: of the likeliest of the batch, of the same group
SCORED = 0.4  # share of the cases that ask for a written number
RESTYLED = 0.35  # share of drawings that are changed as another hand might have drawn them
LANCZOS = Image.Resampling.LANCZOS


@dataclass
class Pair:
    """One question. `query` and `candidate` are rows of the batch's pictures, or None where that side has only
    words."""

    prompt: Prompt
    query: int | None
    candidate: int | None
    query_text: str | None
    candidate_text: str | None
    answer: str
    find: Tensor | None = (
        None  # [cells] how much of each cell of the candidate shows what is asked for; None: not asked
    )

    @property
    def words_last(self) -> bool:
        """Whether words stand after the one image, so that they look back at it."""
        return self.prompt.parts in (("candidate.image", "query.text"), ("query.image", "candidate.text"))

    def items(self) -> tuple[Item, Item]:
        """Stand-ins for laying the prompt out; any object serves as a picture."""
        shown = [Item("", image=None if row is None else "picture", text=text)  # type: ignore[arg-type]
                 for row, text in ((self.query, self.query_text), (self.candidate, self.candidate_text))]  # fmt: skip
        return shown[0], shown[1]


@dataclass
class Regions:
    """Every sufficiently visible object of every picture of a batch; r regions, the first n are the portraits' own."""

    picture: Tensor  # [r] row of the batch's pictures
    cover: Tensor  # [r, cells]
    drawing: Tensor  # [r] sprite row
    name: Tensor  # [r] the same number where the object is the same
    labels: list[str]
    objects: list[str]
    figure: Tensor  # [2n, cells] share of each cell that shows any object


@dataclass
class Batch:
    """n cases: pictures [0, n) are portraits, [n, 2n) scenes; scene i shows the object of portrait i."""

    pictures: Tensor
    captions: list[str]
    same_drawing: Tensor  # [n, n] bool: the object of portrait i is in scene j; by its hand, unless `kin`
    same_object: Tensor  # [n, n] bool: something of that name is in scene j, by whatever vendor
    regions: Regions
    portraits: list[Scene] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    kin: list[bool] = field(default_factory=list)  # [n] whether portrait and scene are by different artists


def pixels(scenes: list[Scene], side: int) -> Tensor:
    """[n, 3, side, side] float32 in [-1, 1]; larger pictures are reduced as the processor does it."""
    images = [s.image if s.image.width == side else s.image.resize((side, side), LANCZOS) for s in scenes]
    stack = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(stack / 127.5 - 1).permute(0, 3, 1, 2).contiguous()


def choose(sprites: Sprites, n: int, rng: Random) -> list[Sprite]:
    """n different objects, half of them drawn by several artists; half in families of four that look alike."""
    chosen: list[Sprite] = []
    while len(chosen) < n:
        first = rng.choice(sprites.drawn_often if rng.random() < 0.5 else sprites.all)
        family = [first] if rng.random() < 0.5 else [first, *(sprites.lookalike(first, rng) for _ in range(3))]
        chosen += [s for s in family if s.object not in {c.object for c in chosen}]
    return chosen[:n]


def by_another(sprite: Sprite, sprites: Sprites, rng: Random) -> Sprite:
    """For a share of KIN another artist's drawing of the same thing, if there is one."""
    others = [s for s in sprites.by_object[sprite.object] if s.vendor != sprite.vendor]
    return rng.choice(others) if others and rng.random() < KIN else sprite


def plain_label(label: str, rng: Random) -> str:
    return rng.choice((label, label, f"a {label}", f"the {label}"))


def caption(scene: Scene, first: Sprite, rng: Random) -> str:
    """Words that are true of the scene: its main object, sometimes a second one, a keyword instead, or the ground."""
    named = plain_label(rng.choice(first.words) if first.words and rng.random() < 0.15 else first.label, rng)
    others = [
        p.sprite.label for p in scene.placed if p.visible > 0.6 and p.scale > 0.2 and p.sprite.object != first.object
    ]
    if others and rng.random() < 0.25:
        return f"{named} and {plain_label(rng.choice(others), rng)}"
    if scene.ground and rng.random() < 0.3:
        return f"{named} on {scene.ground}"
    return named


def shows(scene: Scene, sprite: Sprite, drawing: bool) -> bool:
    return any((p.sprite.row == sprite.row) if drawing else (p.sprite.object == sprite.object) for p in scene.placed)


def regions(scenes: list[Scene]) -> Regions:
    rows, covers, drawings, labels, names = [], [], [], [], {}
    for picture, scene in enumerate(scenes):
        for p in scene.placed:
            if p.visible >= VISIBLE and p.cover.max() > 0.1:
                rows.append(picture)
                covers.append(p.cover.reshape(-1))
                drawings.append(p.sprite.row)
                labels.append(p.sprite)
    number = [names.setdefault(s.object, len(names)) for s in labels]
    figure = [np.clip(sum(p.cover for p in scene.placed), 0, 1).reshape(-1) for scene in scenes]
    return Regions(
        torch.tensor(rows), torch.from_numpy(np.stack(covers)), torch.tensor(drawings), torch.tensor(number),
        [s.label for s in labels], [s.object for s in labels],
        torch.from_numpy(np.stack(figure).astype(np.float32)),
    )  # fmt: skip


def make_batch(
    sprites: Sprites, n: int, side: int, hard: float, plain: float, seed: int, step: int, hands: bool = True
) -> Batch:
    """`hard` in [0, 1] moves from one large object to clutter; `plain` is the share of pictures on a grey ground.
    `hands`: whether some drawings are restyled and some portraits by another artist."""
    rng = Random(seed * 1_000_003 + step)
    drawn = 2 * side if rng.random() < LARGER else side
    chosen = choose(sprites, n, rng)
    restyle = RESTYLED if hands else 0.0
    asked = [by_another(s, sprites, rng) for s in chosen] if hands else chosen
    kin = [one.row != other.row for one, other in zip(asked, chosen, strict=True)]
    portraits = [portrait(s, drawn, rng, sprites, plain, restyle) for s in asked]
    scenes = []
    for sprite in chosen:
        level = hard * rng.uniform(0.1, 1.0)
        others = rng.randint(0, 1 + round(6 * level))
        scenes.append(clutter([sprite], others, drawn, rng, sprites, level, plain, restyle))
    return Batch(
        pixels(portraits + scenes, side),
        [caption(scene, sprite, rng) for scene, sprite in zip(scenes, chosen, strict=True)],
        torch.tensor([[shows(scene, s, not other) for scene in scenes] for s, other in zip(asked, kin, strict=True)]),
        torch.tensor([[shows(scene, s, False) for scene in scenes] for s in asked]),
        regions(portraits + scenes),
        portraits,
        scenes,
        kin,
    )


def negative(row: Tensor, taken: Tensor, alike: Tensor, rng: Random) -> int | None:
    """A column that is not `taken`; sometimes one of the five with the highest likeness in `row`, sometimes one of the
    same group (`alike`). More often than that, and the likeness itself no longer tells the answer, so that nothing is
    learnt (docs/lab/log.md)."""
    order = [j for j in row.argsort(descending=True).tolist() if not taken[j]]
    if not order:
        return None
    kind = rng.random()
    if kind < HARD:
        return rng.choice(order[:5])
    family = [j for j in order if alike[j]]
    return rng.choice(family) if family and kind < HARD + FAMILY else rng.choice(order)


def found(scene: Scene, sprite: Sprite, drawing: bool) -> Tensor:
    """[cells] how much of each cell of the scene shows this drawing, or anything of that name."""
    match = [
        p.cover for p in scene.placed if (p.sprite.row == sprite.row if drawing else p.sprite.object == sprite.object)
    ]
    return torch.from_numpy(np.clip(sum(match, np.zeros_like(scene.placed[0].cover)), 0, 1).reshape(-1))


def make_pairs(
    batch: Batch, looks: Tensor, reads: Tensor, ask: int, long: float, seed: int, step: int, negatives: float = 1.4
) -> list[Pair]:
    """Questions about the first `ask` cases. `looks` and `reads` [n, n] are likenesses used to pick hard negatives."""
    rng, n, pairs = Random(seed * 7_000_003 + step), len(batch.scenes), []
    groups = [p.placed[0].sprite.group for p in batch.portraits]
    for i in range(ask):
        sprite = batch.portraits[i].placed[0].sprite
        prompt = draw("object", long, rng)
        there = found(batch.scenes[i], sprite, not batch.kin[i])
        alike = torch.tensor([group == sprite.group for group in groups])
        pairs.append(Pair(prompt, i, n + i, None, None, answer(prompt, True), there))
        for _ in range(int(negatives) + (rng.random() < negatives % 1)):
            j = negative(looks[i], batch.same_object[i], alike, rng)
            if j is not None:
                nowhere = torch.zeros_like(there)
                pairs.append(Pair(prompt, i, n + j, None, None, answer(prompt, False), nowhere))
        j = negative(reads[i], batch.same_object[i] | batch.same_object[:, i], alike, rng)  # neither shows the other
        pairs += _match_pairs(batch, i, j, long, rng)
        pairs += _name_pairs(batch, i, rng.randrange(n), long / 2, rng)
        if rng.random() < 0.15 and j is not None:
            pairs += _class_pairs(batch, i, rng.randrange(n), long, rng)
        if rng.random() < 0.2 and j is not None:
            pairs += _composed_pairs(batch, i, j, sprite, long, rng)
        if rng.random() < SCORED and j is not None:
            pairs += _score_pairs(batch, i, j, rng)
    return pairs


def _text_pair(prompt: Prompt, text: str, picture: int, reply: str, find: Tensor) -> Pair:
    if "query.image" in prompt.parts:  # image -> text: the caption is the candidate
        return Pair(prompt, picture, None, None, text, reply, find)
    return Pair(prompt, None, picture, text, None, reply, find)


def _text_pairs(prompt: Prompt, text: str, right: int, wrong: int | None, there: Tensor) -> list[Pair]:
    """The same words about the picture they are true of and, if there is one, about another."""
    pairs = [_text_pair(prompt, text, right, answer(prompt, True), there)]
    if wrong is not None:
        pairs.append(_text_pair(prompt, text, wrong, answer(prompt, False), torch.zeros_like(there)))
    return pairs


def _match_pairs(batch: Batch, i: int, j: int | None, long: float, rng: Random) -> list[Pair]:
    prompt, n = draw("match", long, rng), len(batch.scenes)
    there = found(batch.scenes[i], batch.portraits[i].placed[0].sprite, False)
    return _text_pairs(prompt, batch.captions[i], n + i, None if j is None else n + j, there)


def _name_pairs(batch: Batch, i: int, j: int, long: float, rng: Random) -> list[Pair]:
    """The easiest question about words: the name of the one thing that a portrait shows, and of another."""
    prompt, sprite = draw("match", long, rng), batch.portraits[i].placed[0].sprite
    other = batch.portraits[j].placed[0].sprite.object != sprite.object
    there = found(batch.portraits[i], sprite, False)
    return _text_pairs(prompt, plain_label(sprite.label, rng), i, j if other else None, there)


def _class_pairs(batch: Batch, i: int, j: int, long: float, rng: Random) -> list[Pair]:
    prompt, n = draw("class", long, rng), len(batch.scenes)
    group = batch.portraits[i].placed[0].sprite.group
    same = any(p.sprite.group == group for p in batch.scenes[j].placed)
    return [Pair(prompt, i, n + j, None, None, answer(prompt, same))]


def _composed_pairs(batch: Batch, i: int, j: int, sprite: Sprite, long: float, rng: Random) -> list[Pair]:
    """The same object, with something else or on some colour; a negative breaks the picture's half or the words'
    half."""
    prompt, n, scene = draw("composed", long, rng), len(batch.scenes), batch.scenes[i]
    others = [p.sprite.label for p in scene.placed if p.visible > 0.6 and p.sprite.object != sprite.object]
    if others and (scene.ground is None or rng.random() < 0.5):
        true = f"with {plain_label(rng.choice(others), rng)}"
        false = f"with {plain_label(batch.portraits[j].placed[0].sprite.label, rng)}"
    elif scene.ground:
        true = f"on {scene.ground}"
        false = f"on {rng.choice([c for c in COLOURS if c != scene.ground])}"
    else:
        return []
    wrong = (n + j, true) if rng.random() < 0.5 else (n + i, false)
    return [
        Pair(prompt, i, n + i, true, None, answer(prompt, True)),
        Pair(prompt, i, wrong[0], wrong[1], None, answer(prompt, False)),
    ]


def _score_pairs(batch: Batch, i: int, j: int, rng: Random) -> list[Pair]:
    """A written score: how much of what the caption names is shown. Two decimals, no halves rounded away."""
    prompt, n = draw("score", 1.0, rng), len(batch.scenes)
    mine, other = batch.portraits[i].placed[0].sprite.label, batch.portraits[j].placed[0].sprite.label
    if rng.random() < 0.34:
        return [Pair(prompt, None, n + i, f"{mine} and {other}", None, f"0.{rng.randint(45, 55)}")]
    right, there = rng.random() < 0.5, found(batch.scenes[i], batch.portraits[i].placed[0].sprite, False)
    number = f"0.{rng.randint(90, 99)}" if right else f"0.0{rng.randint(0, 9)}"
    return [Pair(prompt, None, n + i, mine if right else other, None, number, there if right else 0 * there)]
