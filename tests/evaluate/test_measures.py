"""Every measure against numbers worked out by hand and against an independent brute force on random rankings."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many import thousand

from looktwice.errors import UnknownName, UsageError
from looktwice.evaluate import Measure, measure
from looktwice.evaluate.measures import measure_kinds

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "measures.md"


def ranked(*documents):
    return [(document, -float(i)) for i, document in enumerate(documents)]


# One query, five relevant documents, found at ranks 1, 3 and 6 of six.
RUN = {"q": ranked("r1", "x1", "r2", "x2", "x3", "r3")}
QRELS = {"q": {"r1": 1, "r2": 2, "r3": 1, "r4": 1, "r5": 1, "x1": 0, "x3": -1}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mAP@3", (1 / 1 + 2 / 3) / 3),
        ("mAP@20", (1 / 1 + 2 / 3 + 3 / 6) / 5),
        ("mAP@1k", (1 / 1 + 2 / 3 + 3 / 6) / 5),
        ("mAP", (1 / 1 + 2 / 3 + 3 / 6) / 5),
        ("AP@3", (1 / 1 + 2 / 3) / 5),
        ("AP", (1 / 1 + 2 / 3 + 3 / 6) / 5),
        ("oracle@3", 2 / 3),
        ("oracle@20", 3 / 5),
        ("recall@3", 2 / 5),
        ("recall@20", 3 / 5),
        ("success@1", 1),
        ("P@1", 1),
        ("P@10", 3 / 10),
        ("Rprec", 2 / 5),
        ("RR", 1),
        ("nDCG@3", (1 + 2 / 2) / (2 + 1 / math.log2(3) + 1 / 2)),
    ],
)
def test_by_hand(name, value):
    assert measure(RUN, QRELS, [name])[name] == pytest.approx(value)


def test_success_and_recall_at_one_are_two_measures():
    found = measure(RUN, QRELS, ["success@1", "recall@1"])
    assert (found["success@1"], found["recall@1"]) == (1, pytest.approx(1 / 5))


def brute_force(name, documents, grades):
    """Each measure once more from its definition, on plain lists and without sharing code."""
    kind, _, depth = name.partition("@")
    relevant = {d for d, grade in grades.items() if grade > 0}
    cut = documents[: int(depth)] if depth else documents
    good = [d in relevant for d in cut]
    precisions = [sum(good[: i + 1]) / (i + 1) for i in range(len(good)) if good[i]]
    gains = [max(grades.get(d, 0), 0) / math.log2(i + 2) for i, d in enumerate(cut)]
    ideal = sorted((max(grade, 0) for grade in grades.values()), reverse=True)[: int(depth) if depth else None]
    return {
        "mAP": lambda: sum(precisions) / min(len(relevant), int(depth or len(relevant))),
        "oracle": lambda: sum(good) / min(len(relevant), int(depth or len(relevant))),
        "AP": lambda: sum(precisions) / len(relevant),
        "recall": lambda: sum(good) / len(relevant),
        "success": lambda: float(any(good)),
        "P": lambda: sum(good) / int(depth),
        "RR": lambda: 1 / (good.index(True) + 1) if any(good) else 0.0,
        "Rprec": lambda: sum(d in relevant for d in documents[: len(relevant)]) / len(relevant),
        "nDCG": lambda: sum(gains) / sum(grade / math.log2(i + 2) for i, grade in enumerate(ideal)),
    }[kind]()


NAMES = [
    "mAP@1",
    "mAP@5",
    "mAP",
    "oracle@5",
    "oracle",
    "AP@5",
    "AP",
    "recall@5",
    "success@1",
    "success@5",
    "P@1",
    "P@5",
    "RR",
    "RR@5",
    "Rprec",
    "nDCG@5",
    "nDCG",
]

documents = st.sampled_from("abcdefgh") | st.text(st.characters(), min_size=1, max_size=2)
rankings = st.lists(documents, unique=True, max_size=10)
grades = st.dictionaries(documents, st.integers(-2, 3), max_size=10)
queries = st.dictionaries(documents, st.tuples(rankings, grades), min_size=1, max_size=4)


def run_and_labels(case):
    return {q: ranked(*docs) for q, (docs, _) in case.items()}, {q: labels for q, (_, labels) in case.items()}


with_something_relevant = queries.filter(
    lambda case: any(g > 0 for _, labels in case.values() for g in labels.values())
)


@given(with_something_relevant)
def test_every_measure_agrees_with_brute_force(case):
    run, qrels = run_and_labels(case)
    found = measure(run, qrels, NAMES)
    counted = [q for q, labels in qrels.items() if max(labels.values(), default=0) > 0]
    for name in NAMES:
        expected = {q: brute_force(name, [d for d, _ in run[q]], qrels[q]) for q in counted}
        assert found.per_query[name] == pytest.approx(expected, abs=1e-6)
        assert found[name] == pytest.approx(sum(expected.values()) / len(expected), abs=1e-6)
    assert found.queries == len(counted)


@given(rankings, st.sets(documents, min_size=1, max_size=8), st.integers(1, 12))
def test_oracle_is_what_a_perfect_second_look_would_get(ranking, relevant, k):
    qrels = {"q": dict.fromkeys(relevant, 1)}
    names = [f"mAP@{k}", f"oracle@{k}", f"AP@{k}", f"recall@{k}"]
    found = measure({"q": ranked(*ranking)}, qrels, names)
    perfect = sorted(ranking[:k], key=lambda document: document not in relevant)
    assert found[names[1]] == pytest.approx(measure({"q": ranked(*perfect)}, qrels, names)[names[0]])
    assert 0 <= found[names[2]] <= found[names[0]] + 1e-6 <= found[names[1]] + 2e-6 <= 1 + 2e-6
    if len(relevant) <= k:
        assert found[names[1]] == pytest.approx(found[names[3]])


@pytest.mark.slow
def test_all_measures_on_a_thousand_rankings():
    thousand(test_every_measure_agrees_with_brute_force, with_something_relevant)
    thousand(
        test_oracle_is_what_a_perfect_second_look_would_get,
        rankings, st.sets(documents, min_size=1, max_size=8), st.integers(1, 12),
    )  # fmt: skip


def test_the_scores_of_a_run_are_not_looked_at():
    assert measure({"q": [("x", 0.1), ("r1", 0.9)]}, QRELS, ["success@1"])["success@1"] == 0


def test_queries_that_need_a_word_are_named():
    run = {"found": ranked("a"), "unlabelled": ranked("a"), "hopeless": ranked("a"), "empty": []}
    qrels = {"found": {"a": 1}, "absent": {"a": 1}, "hopeless": {"a": 0}, "blank": {}, "empty": {"a": 1}}
    found = measure(run, qrels, ["success@1", "AP"])
    assert found.missing == ("absent",)
    assert found.without_relevant == ("blank", "hopeless")
    assert found.unlabelled == ("unlabelled",)
    assert found.per_query["AP"] == {"absent": 0, "empty": 0, "found": 1}
    assert found["success@1"] == pytest.approx(1 / 3) and found.queries == 3


def test_hostile_ids_reach_the_standard_measures():
    names = ["a b", "a\nb", "\udce9", "\x00", "猫", "", "'; DROP"]
    found = measure({name: ranked(*names) for name in names}, {name: {name: 1} for name in names}, ["RR"])
    assert found.per_query["RR"] == pytest.approx({name: 1 / (i + 1) for i, name in enumerate(names)})


@pytest.mark.parametrize("qrels", [{}, {"q": {}}, {"q": {"a": 0, "b": -1}}])
def test_nothing_to_measure_is_refused(qrels):
    with pytest.raises(UsageError, match="No query has a relevant document"):
        measure(RUN, qrels, ["AP"])


def test_a_document_listed_twice_is_refused():
    with pytest.raises(UsageError, match="'q' has a document twice"):
        measure({"q": ranked("a", "b", "a")}, {"q": {"a": 1}}, ["AP"])


@pytest.mark.parametrize(
    "name", ["mAP@20", "mAP", "oracle@20", "success@1", "recall@5", "P@1", "nDCG@10", "nDCG", "Rprec"]
)
def test_a_measure_prints_as_its_name(name):
    assert str(Measure.parse(name)) == name and Measure.parse(Measure.parse(name)) == Measure.parse(name)
    assert Measure.parse(f"{name.partition('@')[0]}@1k" if "@" in name else name) is not None


@pytest.mark.parametrize(
    "name", ["map@20", "mAP@0", "mAP@", "mAP@-1", "mAP@x", "success", "recall", "P", "Rprec@5", "", "MRR", "@5"]
)
def test_an_unknown_measure_is_refused_with_what_exists(name):
    with pytest.raises(UnknownName, match="measure"):
        measure(RUN, QRELS, [name])


def test_the_ambiguous_name_is_refused_with_both_meanings():
    with pytest.raises(UsageError, match=r"success@1 .* recall@1"):
        Measure.parse("R@1")


def test_every_measure_is_documented_with_its_formula():
    headings = re.findall(r"^### `(\w+)", DOCS.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(measure_kinds())
