"""The measures against the formulas of official evaluators, written anew here from the sources that measures.md names.

Each oracle keeps the shape of its original: ranks from 0 and junk counted off (revisitop), a mask of the first k
(GLDv2), ties merged into one step of the curve (ILIAS, whose evaluator is scikit-learn's average precision), a running
count (Product1M), a loop over sorted predictions (Met), argmax over candidates with the right one first (MMEB).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from looktwice.cli.eval.tables import tell
from looktwice.evaluate import measure, mmeb
from looktwice.evaluate.confidence import confidence_measures, mean_of_means
from looktwice.evaluate.datasets import open_dataset
from looktwice.evaluate.groups import measure_group

CASES = range(40)


def case(seed: int, junk: bool = False) -> tuple[list[str], dict[str, int]]:
    """A ranking of a part of 60 documents, and labels of which some were not retrieved."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(60)]
    ranking = [str(name) for name in rng.permutation(names)[: int(rng.integers(5, 60))]]
    labels = {str(name): 1 for name in rng.permutation(names)[: int(rng.integers(1, 20))]}
    others = [name for name in names if name not in labels]
    return ranking, labels | ({str(name): -1 for name in rng.permutation(others)[:8]} if junk else {})


def measured(ranking: Sequence[str], labels: dict[str, int], name: str) -> float:
    run = {"q": [(document, -float(rank)) for rank, document in enumerate(ranking)]}
    return measure_group(run, {"q": labels}, [name])[name]


def revisitop(ranking: Sequence[str], labels: dict[str, int]) -> float:
    """`compute_ap` over ranks from 0, each lowered by the junk before it; diffusion retrieval's `compute_map` too."""
    places = [i for i, name in enumerate(ranking) if labels.get(name, 0) > 0]
    junk = [i for i, name in enumerate(ranking) if labels.get(name, 0) < 0]
    places = [place - sum(j < place for j in junk) for place in places]
    step, total = 1.0 / sum(grade > 0 for grade in labels.values()), 0.0
    for found, rank in enumerate(places):
        before = 1.0 if rank == 0 else found / rank
        total += (before + (found + 1.0) / (rank + 1.0)) * step / 2.0
    return total


@pytest.mark.parametrize("seed", CASES)
def test_roxford_and_instres_older_papers(seed: int) -> None:
    ranking, labels = case(seed, junk=True)
    assert measured(ranking, labels, "trapAP") == pytest.approx(revisitop(ranking, labels))


@pytest.mark.parametrize("seed", CASES)
def test_gldv2_and_circo(seed: int) -> None:
    """Both mask the first k, weigh precision by hits and divide by min(k, |G|)."""
    ranking, labels = case(seed)
    for k in (1, 5, 10, 50, 100):
        hits = np.array([labels.get(name, 0) > 0 for name in ranking[:k]], float)
        precision = np.cumsum(hits) * hits / np.arange(1, len(hits) + 1)
        assert measured(ranking, labels, f"mAP@{k}") == pytest.approx(precision.sum() / min(k, len(labels)))


@pytest.mark.parametrize("seed", CASES)
def test_ilias(seed: int) -> None:
    """scikit-learn's average precision of the first k, times the hits there, over min(k, |G|); recall beside it."""
    ranking, labels = case(seed)
    k = 30
    hits = np.array([labels.get(name, 0) > 0 for name in ranking[:k]])
    scores = -np.arange(len(hits), dtype=float)
    official = average_precision_score(hits, scores) * hits.sum() / min(k, len(labels)) if hits.any() else 0.0
    assert measured(ranking, labels, f"mAP@{k}") == pytest.approx(official)
    assert measured(ranking, labels, f"oracle@{k}") == pytest.approx(hits.sum() / min(k, len(labels)))


@pytest.mark.parametrize("seed", CASES)
def test_trec_eval(seed: int) -> None:
    """map, map_cut, P, recall, recip_rank, Rprec and ndcg_cut of trec_eval's manual."""
    ranking, labels = case(seed)
    hits, total = [labels.get(name, 0) > 0 for name in ranking], len(labels)
    for k in (5, 20):
        top = hits[:k]
        gained = sum(hit / np.log2(rank + 1) for rank, hit in enumerate(top, 1))
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, total) + 1))
        assert measured(ranking, labels, f"P@{k}") == pytest.approx(sum(top) / k)
        assert measured(ranking, labels, f"recall@{k}") == pytest.approx(sum(top) / total)
        assert measured(ranking, labels, f"nDCG@{k}") == pytest.approx(gained / ideal)
        summed = sum(sum(hits[:rank]) / rank for rank, hit in enumerate(top, 1) if hit)
        assert measured(ranking, labels, f"AP@{k}") == pytest.approx(summed / total)
    first = next((rank for rank, hit in enumerate(hits, 1) if hit), None)
    assert measured(ranking, labels, "RR") == pytest.approx(1 / first if first else 0)
    assert measured(ranking, labels, "Rprec") == pytest.approx(sum(hits[:total]) / total)


@pytest.mark.parametrize("seed", CASES)
def test_product1ms_own_script(seed: int) -> None:
    ranking, labels = case(seed)
    for k in (10, 100):
        count, total = 0, 0.0
        for place, name in enumerate(ranking[:k]):
            if name in labels:
                count += 1
                total += count / (place + 1.0)
        assert measured(ranking, labels, f"foundAP@{k}") == pytest.approx(total / count if count else 0.0)


def test_product1ms_own_labels_are_the_first_of_each_image(tmp_path: Path) -> None:
    miniatures.product1m(tmp_path)
    gallery = tmp_path / "product1m_gallery_ossurl_v2.txt"
    gallery.write_text(gallery.read_text().replace("lotion b\n", "other#;#lotion b\n"))
    both = {name: open_dataset(name, tmp_path, partial=True) for name in ("product1m", "product1m:own")}
    assert both["product1m"].measures[0] == "mAP@100" and both["product1m:own"].measures[0] == "foundAP@100"
    for query, labels in both["product1m:own"].qrels.items():
        assert labels.keys() <= both["product1m"].qrels[query].keys()
    found, own = (sum(map(len, both[name].qrels.values())) for name in ("product1m", "product1m:own"))
    assert own < found


@pytest.mark.parametrize("seed", CASES)
def test_cirr(seed: int) -> None:
    """Recall@K: the target among the first K once the reference is gone; R_subset: among the group's other images."""
    rng = np.random.default_rng(seed)
    names = [f"i{n}" for n in range(30)]
    ranking = [str(name) for name in rng.permutation(names)]
    reference, target = (str(name) for name in rng.permutation(names)[:2])
    kept = [name for name in ranking if name != reference]
    for k in (1, 5, 10, 50):
        assert measured(ranking, {target: 1, reference: -1}, f"success@{k}") == float(target in kept[:k])
    group = {target, *(str(name) for name in rng.permutation(names)[:5])} - {reference}
    subset = [name for name in kept if name in group]
    assert measured(subset, {target: 1, reference: -1}, "success@2") == float(target in subset[:2])


def met(
    predicted: Sequence[int], confidence: Sequence[float], true: Sequence[int | None]
) -> tuple[float, float, float]:
    """Sorted by confidence, Σ precision at right answers, over the number of queries with a label."""

    def gap(rows: Sequence[int]) -> float:
        rows = sorted(rows, key=lambda i: -confidence[i])
        right = [predicted[i] == true[i] for i in rows]
        labelled = sum(label is not None for label in true)
        return sum(sum(right[: n + 1]) / (n + 1) for n, hit in enumerate(right) if hit) / labelled

    known = [i for i, label in enumerate(true) if label is not None]
    return gap(range(len(true))), gap(known), sum(predicted[i] == true[i] for i in known) / len(known)


@pytest.mark.parametrize("seed", CASES)
def test_met(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true: list[int | None] = [int(x) if x < 4 else None for x in rng.integers(0, 8, 40)]
    predicted = [int(x) for x in rng.integers(0, 4, 40)]
    confidence = [float(x) for x in rng.random(40)]
    of = {label: {f"{label}-{n}": 1 for n in range(3)} for label in range(4)}
    qrels: dict[str, dict[str, int]] = {f"q{i:02}": of.get(label, {}) for i, label in enumerate(true)}  # type: ignore[arg-type]
    run = {f"q{i:02}": [(f"{predicted[i]}-0", confidence[i]), ("x", -1.0)] for i in range(40)}
    found = confidence_measures(run, qrels)
    assert tuple(found.values()) == pytest.approx(met(predicted, confidence, true))


def test_met_with_all_queries_asks_those_without_an_answer(tmp_path: Path) -> None:
    miniatures.met(tmp_path)
    few, every = (open_dataset(name, tmp_path, partial=True) for name in ("met", "met:all"))
    assert len(every.queries) > len(few.queries) and every.confidence and not few.confidence
    assert {query.id for query in every.queries} == set(every.qrels)
    assert [labels for labels in every.qrels.values() if not labels]


def test_sugarcrepes_rows_are_means_of_kinds(tmp_path: Path) -> None:
    miniatures.sugarcrepe(tmp_path)
    dataset = open_dataset("sugarcrepe", tmp_path, partial=True)
    assert dataset.means == {
        "Add": ("add_att", "add_obj"),
        "Replace": ("replace_att", "replace_obj", "replace_rel"),
        "Swap": ("swap_att", "swap_obj"),
    }
    # the sizes of the published files, and right answers that make both means differ as they do in the literature
    right = {"replace_att": (788, 630), "replace_obj": (1652, 1550), "replace_rel": (1406, 915)}
    values = {k: {f"{k}/{i}": float(i < hits) for i in range(n)} for k, (n, hits) in right.items()}
    weighed = mean_of_means(values)
    macro = np.mean([hits / n for n, hits in right.values()])
    micro = sum(hits for _, hits in right.values()) / sum(n for n, _ in right.values())
    assert np.mean(weighed) == pytest.approx(macro) and abs(macro - micro) > 0.005


def test_means_of_kinds_and_confidence_reach_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from looktwice.evaluate.datasets.base import Dataset
    from looktwice.experiment.result import summarise
    from looktwice.experiment.stored import StoredAnswer
    from looktwice.experiment.systems import System

    qrels = {"a1": {"x": 1}, "b1": {"x": 1}, "b2": {"y": 1}, "b3": {"y": 1}, "none": {}}
    groups = {"a": {"a1": qrels["a1"]}, "b": {q: qrels[q] for q in ("b1", "b2", "b3")}}
    dataset = Dataset(
        "d", [], [], qrels, ("success@1",), groups=groups, means={"Both": ("a", "b"), "Empty": ("c",)}, confidence=True
    )
    answers = [StoredAnswer(query, ("x", "y"), (0.9, 0.5), ()) for query in qrels]
    record: dict[str, Any] = summarise(
        dataset, answers, [System("shortlist", None, 2)], known={"x", "y"}, bytes_per_item=(1.0, 1.0)
    ).record
    assert record["groups"]["Both"]["shortlist"]["success@1"]["mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert record["groups"]["Both"]["queries"] == 4 and "Empty" not in record["groups"]
    assert record["confidence"]["shortlist"]["ACC"] == pytest.approx(2 / 4)
    tell({**record, "tuning": None})
    assert "GAP-" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(8))
def test_mmeb(seed: int) -> None:
    """VLM2Vec's evaluation: the right candidate is the first of each query's, and argmax must be 0; mean over sets."""
    rng = np.random.default_rng(seed)
    official, ours = {}, {}
    for name in mmeb.NAMES:
        scores = rng.random((20, 5)) + 0.3 * np.eye(5)[0]
        official[name] = (scores.argmax(1) == 0).mean()
        run = {
            f"q{i}": sorted(((f"c{j}", s) for j, s in enumerate(row)), key=lambda hit: -hit[1])
            for i, row in enumerate(scores)
        }
        ours[name] = measure(run, {query: {"c0": 1} for query in run}, ["success@1"])["success@1"]
    assert ours == pytest.approx(official)
    assert mmeb.averages(ours)["overall by data set"] == pytest.approx(sum(official.values()) / 36)


def test_mmebs_overall_of_other_systems_is_the_mean_of_groups() -> None:
    """Rows of RetLLM's table: group means, then the printed Overall."""
    for *means, overall in (
        (42.8, 9.1, 53.0, 51.8, 39.2), (41.5, 6.9, 44.6, 53.5, 36.6), (52.3, 14.0, 50.5, 60.3, 44.3),
        (56.0, 10.4, 49.2, 58.9, 43.7), (39.7, 10.8, 39.4, 60.2, 37.5), (43.0, 17.7, 42.5, 63.2, 41.6),
    ):  # fmt: skip
        scores = {name: mean for mean, names in zip(means, mmeb.GROUPS.values(), strict=True) for name in names}
        assert mmeb.averages(scores)["overall by group"] == pytest.approx(overall, abs=0.1)


def test_mmebs_instructions_stand_before_the_texts(tmp_path: Path) -> None:
    row = {
        "qry_inst": "<|image_1|> Find the answer.",
        "qry_text": "What is it?",
        "qry_img_path": "DocVQA/q.jpg",
        "tgt_inst": "Answer:",
        "tgt_text": ["right", "wrong"],
        "tgt_img_path": ["", ""],
    }
    miniatures.mmeb(tmp_path)
    miniatures.table(tmp_path / "DocVQA/test-00000-of-00001.parquet", [row])
    dataset = open_dataset("mmeb:DocVQA", tmp_path, partial=True)
    assert dataset.queries[0].source.text == "Find the answer. What is it?"
    assert [item.text for item in dataset.items] == ["Answer: right", "Answer: wrong"]  # type: ignore[union-attr]


def test_cirr_in_the_layout_of_its_readme(tmp_path: Path) -> None:
    miniatures.cirr(tmp_path)
    before = open_dataset("cirr", tmp_path, partial=True)
    (tmp_path / "cirr/img_raw").mkdir()
    (tmp_path / "dev").rename(tmp_path / "cirr/img_raw/dev")
    after = open_dataset("cirr", tmp_path, partial=True)
    assert [query.load().id for query in after.queries] == [query.id for query in before.queries]
    assert all("img_raw/dev" in str(item.uri) for item in after.items)  # type: ignore[union-attr]


def test_urban1k_reads_first_lines(tmp_path: Path) -> None:
    miniatures.urban1k(tmp_path)
    dataset = open_dataset("urban1k:t2i", tmp_path, partial=True)
    assert {query.source.text for query in dataset.queries} == {"A street with 1 cars.", "A street with 2 cars."}


def test_measure_still_takes_a_list() -> None:
    assert measure({"q": [("d", 1.0)]}, {"q": {"d": 1}}, ["foundAP@1"])["foundAP@1"] == 1.0
