"""The benchmark that comes along: seeded, labelled by construction, small enough to ship."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fakes import INSTALLED

from looktwice.errors import UsageError
from looktwice.evaluate import scenes
from looktwice.evaluate.scenes import SMALL, ScenesSize, build
from looktwice.evaluate.scenes.compose import clutter, portrait
from looktwice.evaluate.scenes.cutouts import Cutout, Cutouts
from looktwice.evaluate.scenes.labels import VISIBLE, Account
from looktwice.sources import images

TINY = ScenesSize("tiny", 30, 1, 12, 8)


@pytest.fixture(scope="module")
def cutouts() -> Cutouts:
    everything = Cutouts.bundled()
    labelled = [c for c in everything.all if c.label][:12]
    everything.all = labelled + [c for c in everything.all if not c.label][:12]
    return everything


@pytest.fixture(scope="module")
def built(tmp_path_factory, cutouts):
    folder = tmp_path_factory.mktemp("scenes")
    return folder, build(folder, TINY, cutouts)


def test_the_bundled_cutouts_are_small_and_free():
    bundled = Cutouts.bundled()
    folder = INSTALLED / "looktwice" / "assets" / "tiny" / "cutouts"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    assert "CC0" in (folder / "LICENCE.md").read_text()
    assert len(bundled.all) >= 300 and len({cutout.id for cutout in bundled.all}) == len(bundled.all)
    picture = bundled.image(bundled.all[0].id)
    assert picture.mode == "RGBA" and max(picture.size) <= 96


def test_the_sizes_that_are_promised():
    assert (scenes.FULL.scenes, scenes.FULL.images + scenes.FULL.words) == (5000, 2000)
    assert (SMALL.scenes, SMALL.images + SMALL.words) == (500, 200)
    asked = [cutout for cutout in Cutouts.bundled().all if cutout.label]
    for size in (scenes.FULL, SMALL):
        assert size.each * len(asked) < size.scenes
        assert len(list(scenes._queries(size, asked))) == size.images + size.words


def test_the_same_seed_makes_the_same_bytes(built, cutouts, tmp_path):
    folder, first = built
    second = build(tmp_path, TINY, cutouts)
    assert [i.read() for i in first.items] == [i.read() for i in second.items]
    assert [q.source.read() for q in first.queries] == [q.source.read() for q in second.queries]
    assert first.qrels == second.qrels and first.groups == second.groups
    assert (folder / "scenes.jsonl").read_bytes() == (tmp_path / "scenes.jsonl").read_bytes()


def test_scenes_are_made_once_and_again_where_the_work_was_cut_off(built, cutouts):
    folder, _ = built
    scene = folder / "scenes" / "scene-00000.jpg"
    before = scene.stat().st_mtime_ns
    build(folder, TINY, cutouts)
    assert scene.stat().st_mtime_ns == before
    (folder / "scenes.jsonl").unlink()  # it is written last
    data = scene.read_bytes()
    scene.write_bytes(b"half")
    build(folder, TINY, cutouts)
    assert scene.read_bytes() == data


def test_a_scene_that_is_gone_is_said(cutouts, tmp_path):
    build(tmp_path, TINY, cutouts)
    (tmp_path / "scenes/scene-00003.jpg").unlink()
    with pytest.raises(UsageError, match=r"scenes/scene-00003\.jpg.*made again"):
        build(tmp_path, TINY, cutouts)


def test_labels_follow_from_the_account(built, cutouts):
    folder, dataset = built
    lines = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()[1:]]
    of = {cutout.id: cutout for cutout in cutouts.all}
    asked = [cutout for cutout in cutouts.all if cutout.label]
    for number in range(TINY.images):
        drawing = asked[number % len(asked)].id
        shown = [(r["id"], s["visible"]) for r in lines for s in r["shows"] if s["id"] == drawing]
        seen = {scene: max(v for name, v in shown if name == scene) for scene, _ in shown}
        expected = {scene: 1 if visible >= VISIBLE else -1 for scene, visible in seen.items()}
        assert dataset.qrels[f"p{number:04d}"] == expected
    for query in dataset.queries:
        if query.id.startswith("w"):
            words = query.load().text
            for scene, grade in dataset.qrels[query.id].items():
                shown = [of[s["id"]] for r in lines if r["id"] == scene for s in r["shows"]]
                assert grade != 1 or any(cutout.label == words for cutout in shown)


def test_every_query_has_an_answer_and_groups_split_the_relevant_ones(built):
    _, dataset = built
    for query in dataset.queries:
        item = query.load()
        assert (item.image is None) == query.id.startswith("w")
    assert all(1 in labels.values() for query, labels in dataset.qrels.items() if query.startswith("p"))
    for axis in ("size", "clutter", "covered"):
        split = [group for name, group in dataset.groups.items() if name.startswith(axis)]
        for query, labels in dataset.qrels.items():
            parts = [name for group in split for name, grade in group[query].items() if grade > 0]
            assert sorted(parts) == sorted(name for name, grade in labels.items() if grade > 0)
    assert {"image queries", "text queries"} <= dataset.groups.keys()


def test_queries_are_split_by_whether_their_name_was_met_in_training(built, cutouts):
    _, dataset = built
    met, never = (dataset.groups[name] for name in ("name met in training", "name never met"))
    assert met.keys() | never.keys() == dataset.qrels.keys() and not met.keys() & never.keys()
    asked = [cutout for cutout in cutouts.all if cutout.label]
    for number in range(TINY.images):
        assert (f"p{number:04d}" in met) == asked[number % len(asked)].met


def test_others_of_the_kind_are_junk_for_words_but_not_for_pictures():
    duck, goose, plane = Cutout("a", "birds", "duck"), Cutout("b", "birds", None), Cutout("c", "sky", "plane")
    shows = {
        "1": [{"id": "a", "scale": 0.5, "visible": 0.9}],
        "2": [{"id": "b", "scale": 0.5, "visible": 0.9}],
        "3": [{"id": "a", "scale": 0.5, "visible": 0.1}, {"id": "c", "scale": 0.5, "visible": 0.9}],
        "4": [{"id": "a", "scale": 0.5, "visible": 0.9}, {"id": "b", "scale": 0.5, "visible": 0.9}],
    }
    account = Account(shows, [duck, goose, plane])
    assert account.labels(duck, words=True) == {"1": 1, "2": -1, "3": -1, "4": 1}
    assert account.labels(duck, words=False) == {"1": 1, "3": -1, "4": 1}


def test_the_account_counts_what_is_covered(cutouts):
    rng, others = Random(5), cutouts.all[12:]
    scene = clutter(cutouts.all[0], others[:5], 192, rng, cutouts, others)
    assert scene.image.size == (192, 192) and scene.image.mode == "RGB" and len(scene.placed) == 6
    assert all(0 <= placed.visible <= 1 for placed in scene.placed)
    assert scene.placed[-1].visible == 1  # nothing lies above the last one
    assert portrait(cutouts.all[0], 192, rng, cutouts, others).placed[0].scale >= 0.6


def test_scenes_differ(built):
    _, dataset = built
    small = [np.asarray(images.load(item.read())[0].resize((16, 16)), dtype=float) for item in list(dataset.items)[:8]]
    assert min(abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]) > 2


def test_missing_cutouts_are_said(tmp_path: Path):
    with pytest.raises(UsageError, match="install looktwice again"):
        Cutouts(tmp_path)


def test_another_artists_drawing_is_relevant_and_the_querys_own_is_junk():
    mine, theirs, kin = (Cutout(name, "g", label) for name, label in (("a", "cat"), ("b", "cat"), ("c", "dog")))
    sight = {"scale": 0.5, "visible": 1.0}
    shown = {
        "own": [{"id": "a", **sight}],
        "theirs": [{"id": "b", **sight}],
        "both": [{"id": "a", **sight}, {"id": "b", **sight}],
        "hidden": [{"id": "b", "scale": 0.5, "visible": VISIBLE - 0.01}],
        "kin": [{"id": "c", **sight}],
        "kin and theirs": [{"id": "c", **sight}, {"id": "b", **sight}],
    }
    account = Account(shown, [mine, theirs, kin])
    assert account.by_others(mine) == {
        "own": -1, "theirs": 1, "both": 1, "hidden": -1, "kin": -1, "kin and theirs": 1,
    }  # fmt: skip
    assert not any(grade > 0 for grade in account.by_others(kin).values())


def test_words_are_told_apart_by_whether_training_has_met_them(built):
    _, dataset = built
    words = {name: labels for name, labels in dataset.groups.items() if name.startswith("words, ")}
    assert set(words) <= {"words, name met in training", "words, name never met"}
    asked = {query.id for query in dataset.queries if not query.source.has_image}
    assert set().union(*words.values()) == asked


def test_the_bundled_scenes_have_queries_for_another_artist():
    bundled = Cutouts.bundled()
    several = {c.label for c in bundled.all if c.label and sum(o.label == c.label for o in bundled.all) > 1}
    assert len(several) >= 20
