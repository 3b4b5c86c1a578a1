"""Damage, curves and mends, with models that need no weights."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from types import MappingProxyType

import numpy as np
import pytest
from looks import Colours, Histograms
from PIL import Image

from looktwice.errors import Mismatch, UsageError
from looktwice.evaluate.datasets import open_dataset
from looktwice.experiment import degrade, robustness
from looktwice.experiment.degrade import DEGRADATIONS, centre, mirrored, normalised
from looktwice.experiment.robustness import Condition, RobustnessSetup, conditions, run_robustness
from looktwice.search.middle_stage import MiddleLook, in_place
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.run_record import RunStats
from looktwice.types import Candidate

FEW = MappingProxyType({kind: DEGRADATIONS[kind] for kind in ("brightness", "clutter")})


def noise(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(40, 220, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def distance(a: Image.Image, b: Image.Image) -> float:
    first, second = (np.asarray(image.resize((30, 20)), dtype=float) for image in (a, b))
    return float(np.abs(first - second).mean())


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_every_damage_is_repeatable_and_grows(kind):
    one, others, changes = DEGRADATIONS[kind], [noise(7), noise(8)], []
    assert len(one.steps) == 3
    for strength in one.steps:
        found = [one.apply(picture, strength, Random(3), others) for picture in (noise(1), noise(1))]
        assert found[0].tobytes() == found[1].tobytes() and found[0].mode == "RGB"
        changes.append(distance(found[0], noise(1)))
    assert changes[0] > 0.5
    if kind not in ("rotation", "crop", "tiling", "clutter"):  # those move pixels: distance says little
        assert changes[0] < changes[2]
    for size in ((1, 1), (3, 200)):
        assert min(one.apply(noise(2, size), one.steps[-1], Random(0), []).size) >= 1


def test_views_keep_what_they_should():
    picture = noise(4)
    assert mirrored(mirrored(picture)).tobytes() == picture.tobytes()
    assert centre(picture).size == (48, 32)
    dark = degrade.DEGRADATIONS["brightness"].apply(picture, 0.2, Random(0), [])
    assert np.asarray(normalised(dark)).max() == 255


def test_the_conditions_cover_every_kind_step_and_mend_once():
    every = conditions(["query", "candidate"])
    assert len({one.key for one in every}) == len(every) == 1 + 2 * 39 + 3 * 14
    assert {one.side for one in every if one.mend != "none"} == {"query"}


@pytest.fixture
def root(tmp_path):
    for thing in range(5):
        for number in range(2):
            path = tmp_path / "things" / f"thing {thing}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = noise(thing, (48, 48))
            image.paste((250, 250, 250), (4 * number, 0, 4 * number + 4, 48))
            image.save(path)
    (tmp_path / "things" / "broken.png").write_bytes(b"")
    return tmp_path / "things"


def bench(root, scorer=None, **changes) -> RobustnessSetup:
    scorer = scorer or Histograms()
    return RobustnessSetup(
        open_dataset("folder", root), Colours(), MllmReranker(scorer), **{"shortlist": 4, "sample": 6, **changes}
    )


class LastFirst:
    """A middle look that turns the first look's order round."""

    depth, codec, zoom = 9, "int8", False

    def look(self, query, shortlist):
        return MiddleLook(in_place(shortlist, {c.id: -c.coarse for c in shortlist}), RunStats())


def test_a_middle_look_chooses_what_the_second_look_sees(root, tmp_path, monkeypatch):
    one = bench(root, middle=LastFirst(), fusion="coarse=0,maxsim=0.75,odds=0.25")
    clean = one.measure(Condition())
    assert clean["middle look"]["mean"] < clean["shortlist"]["mean"] == pytest.approx(1.0)
    assert clean["second look"]["mean"] < 1 and len(clean["values"]) == 3
    damage = {kind: FEW[kind] for kind in ("brightness",)}
    monkeypatch.setattr(robustness, "DEGRADATIONS", damage)
    record = run_robustness(one, tmp_path / "out", ["query"], lambda done, total: None)
    assert len(record["conditions"]) == 4 and record["about"]["maxsim"] == 9
    assert "middle look" in (tmp_path / "out/query-brightness.svg").read_text()
    with pytest.raises(Mismatch, match="other settings"):
        run_robustness(bench(root), tmp_path / "out", ["query"], lambda done, total: None)


def test_an_item_that_is_gone_is_missing_not_failed(root):
    one = bench(root)
    shortlist = [Candidate(query.id, 0.5) for query in one.dataset.queries[:3]]
    query = one.dataset.queries[3].load()
    (root / shortlist[1].id).unlink()
    assert one._second(query, shortlist, None, "none")[0].status == ("ok", "missing", "ok")


def test_damage_hurts_and_is_told_apart_by_side(root):
    one = bench(root)
    clean = one.measure(Condition())
    assert clean["shortlist"]["mean"] == pytest.approx(1.0) and clean["pairs_per_query"] == 4
    hidden = [one.measure(Condition(side, "clutter", 3)) for side in ("query", "candidate")]
    assert all(row["shortlist"]["mean"] < 1 and row["second look"]["mean"] < 1 for row in hidden)
    assert hidden[0]["values"] != hidden[1]["values"]
    assert one.measure(Condition()) == clean  # nothing is left behind


def test_damaged_pictures_do_not_keep_the_hash_of_the_whole_ones(root):
    item = bench(root).queries[0]
    assert item.sha256 is not None
    assert robustness._changed(item, lambda picture, rng: picture, 0).sha256 is None
    assert robustness._seen(item, mirrored).sha256 is None
    assert robustness._changed(item, None, 0) is robustness._seen(item, None) is item


def test_mends_cost_what_they_say(root):
    one = bench(root)
    pairs = {mend: one.measure(Condition(mend=mend))["pairs_per_query"] for mend in ("none", *robustness.MENDS)}
    assert pairs == {"none": 4, "views": 12, "both orders": 8, "contrast": 4}


def test_several_views_make_one_vector_of_unit_length(root):
    one = bench(root)
    lists = one._coarse(one.queries, None, Condition(mend="views"))
    names, vectors = one._items(None, Condition())
    for query, found in zip(one.queries, lists, strict=True):
        mean = sum(Colours().encode([robustness._seen(query, view)])[0] for view in robustness._views("views"))
        expected = dict(zip(names, vectors @ (mean / np.linalg.norm(mean)), strict=True))
        assert {c.id: c.coarse for c in found} == pytest.approx({c.id: expected[c.id] for c in found}, abs=1e-6)


def test_contrast_mends_darkness(root):
    class Exact(Histograms):
        def _one(self, query, candidate):
            return float(np.exp(-distance(query.image, candidate.image) / 20))

    one = bench(root, Exact(), fusion="p-only")
    dark = one.measure(Condition("query", "brightness", 3))["second look"]["mean"]
    mended = one.measure(Condition("query", "brightness", 3, "contrast"))["second look"]["mean"]
    assert mended > dark


def test_a_run_writes_curves_and_goes_on(root, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "DEGRADATIONS", FEW)
    seen = []
    record = run_robustness(bench(root), tmp_path / "out", ["query"], lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7 + 9, 7 + 9) == (len(record["conditions"]),) * 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "conditions.jsonl", "robustness.json", "query-brightness.svg", "query-clutter.svg",
    }  # fmt: skip
    lines = (tmp_path / "out/conditions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/conditions.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    scorer = Histograms()
    again = run_robustness(bench(root, scorer), tmp_path / "out", ["query"], lambda done, total: None)
    assert again["conditions"] == record["conditions"] and scorer.pairs > 0
    assert json.loads((tmp_path / "out/robustness.json").read_text())["about"]["queries"] == 6
    with pytest.raises(Mismatch, match="other settings"):
        run_robustness(bench(root, sample=3), tmp_path / "out", ["query"], lambda done, total: None)


def test_what_changes_the_figures_is_refused_when_a_run_goes_on(root, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "DEGRADATIONS", {})
    begin = lambda bench: run_robustness(bench, tmp_path / "out", ["query"], lambda done, total: None)  # noqa: E731
    begin(bench(root))
    for changes in ({"prompt": "generic"}, {"score_mode": "digit"}):
        with pytest.raises(Mismatch, match="other settings"):
            begin(RobustnessSetup(open_dataset("folder", root), Colours(), MllmReranker(Histograms(), **changes), 4, 6))
    other = open_dataset("folder", root)
    first, *rest = sorted(other.qrels)
    swapped = {first: other.qrels[rest[-1]], **{query: other.qrels[query] for query in rest}}
    with pytest.raises(Mismatch, match="other settings"):
        begin(RobustnessSetup(replace(other, qrels=swapped), Colours(), MllmReranker(Histograms()), 4, 6))
    with pytest.raises(Mismatch, match="other settings"):
        begin(RobustnessSetup(other, Colours(), MllmReranker(Histograms("2")), 4, 6))
    fewer = open_dataset("folder", root)
    with pytest.raises(Mismatch, match="other settings"):
        begin(
            RobustnessSetup(replace(fewer, items=list(fewer.items)[:-1]), Colours(), MllmReranker(Histograms()), 4, 6)
        )
    begin(bench(root))


def test_a_dataset_without_picture_queries_is_refused(tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "cats"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "who?"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    with pytest.raises(UsageError, match="lacks image queries"):
        RobustnessSetup(open_dataset("beir", tmp_path), Colours(), MllmReranker(Histograms()))
