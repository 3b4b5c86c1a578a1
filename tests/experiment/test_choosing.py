"""Choosing a fusion on labelled queries: gains that are real are found, and those of chance are not claimed."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from looktwice.errors import UsageError
from looktwice.experiment.choosing import Chooser, fitted
from looktwice.experiment.gain import folds
from looktwice.experiment.labelled import Labelled, groups_of, unpacked
from looktwice.experiment.systems import scores_of
from looktwice.rank import Fusion, fuse
from looktwice.search.answer import Answer
from looktwice.search.run_record import RunStats
from looktwice.types import Candidate, Item

HALF, MEASURE = Fusion.parse("0.5"), "mAP@100"


def answers(
    queries: int, coarse: float, p: float, entropy: float = 0.0, *, n: int = 12, seed: int = 0, judged: bool = False
) -> list[Labelled]:
    """Queries with two relevant items of `n`; each signal is noise, shifted for relevant items by its strength."""
    rng, made = np.random.default_rng(seed), []
    for query in range(queries):
        right = np.arange(n) < 2
        cosine, odds, spread = (rng.normal(size=n) + strength * right for strength in (coarse, p, entropy))
        ids = [f"{query}-{i}" for i in rng.permutation(n)]
        grades = {name: int(yes) for name, yes in zip(ids, right, strict=True) if yes or judged}
        shortlist = [Candidate(name, float(np.tanh(x / 4))) for name, x in zip(ids, cosine, strict=True)]
        scores = scores_of(list(1 / (1 + np.exp(-odds))), list(np.exp(spread)))
        made.append(Labelled(f"q{query}", shortlist, scores, grades, judged))
    return made


def test_a_labelled_answer_keeps_what_could_not_be_read_in_its_place():
    shortlist = [Candidate("gone", 0.9), Candidate("bad", 0.8), Candidate("good", 0.7)]
    scores = scores_of([None, 0.1, 0.9], gone=[True, False, False])
    hits = fuse(shortlist, scores, HALF, explain=True)
    assert [hit.id for hit in hits] == ["gone", "good", "bad"]
    made = Labelled.of(Answer(Item("q"), shortlist, hits, 10, {}, RunStats()), {"gone": 1}, judged=False)
    assert made.scores.status == ("missing", "ok", "ok") and made.value(HALF, "mAP@1") == 1


def test_the_better_look_gets_the_weight():
    found = Chooser({"auto": answers(40, 0.0, 3.0)}, Fusion.parse("0.9"), MEASURE).select()
    assert found.gain.claimed and found.gain.interval.low > 0.1
    assert found.choice.stacked or found.choice.fusion.p_weight > 0.5
    assert found.gain.after - found.gain.before == pytest.approx(found.gain.interval.mean)


def test_a_stack_is_chosen_where_weights_do_not_reach():
    """Only the entropy tells right from wrong here."""
    found = Chooser({"auto": answers(40, 0.0, 0.0, 3.0)}, HALF, MEASURE).select()
    assert found.gain.claimed and found.choice.stacked and dict(found.choice.fusion.stack.weights)["entropy"] > 0


def test_the_better_prompt_is_chosen():
    prompts = {"object": answers(30, 0.5, 0.0), "match": answers(30, 0.5, 3.0)}
    found = Chooser(prompts, HALF, MEASURE).select()
    assert found.gain.claimed and found.choice.prompt == "match"


def test_chance_is_not_claimed():
    """Both looks are noise, so no choice gains anything: 95 % intervals above 0 are rare."""
    claims = [
        Chooser({"auto": answers(12, 0.0, 0.0, seed=seed)}, HALF, MEASURE).select().gain.claimed for seed in range(12)
    ]
    assert sum(claims) <= 2


def test_linked_queries_stay_in_one_fold():
    made = answers(12, 0.0, 1.0)
    shared = [Labelled(a.query, a.shortlist, a.scores, {**a.grades, f"shared-{i // 2}": 1}, False)
              for i, a in enumerate(made)]  # fmt: skip
    groups = groups_of({one.query: one.grades for one in shared})
    assert len(set(groups.values())) == 6
    for train, held in folds(groups, 5):
        assert {groups[q] for q in train}.isdisjoint({groups[q] for q in held})
        assert len(train) + len(held) == 12


def test_a_stack_never_sees_the_queries_that_measure_it(monkeypatch):
    made, seen = answers(20, 0.0, 1.0), []
    chooser = Chooser({"auto": made}, HALF, MEASURE)
    real = Chooser.choose
    monkeypatch.setattr(Chooser, "choose", lambda self, queries: seen.append(set(queries)) or real(self, queries))
    chooser.select()
    everyone = {one.query for one in made}
    assert seen[-1] == everyone and len(seen) == 6
    assert set().union(*(everyone - train for train in seen[:5])) == everyone
    assert all(len(train) == 16 for train in seen[:5])


def test_unmarked_hits_are_neither_right_nor_wrong():
    (one,) = answers(1, 0.0, 0.0, judged=True)
    marked = dict(list(one.grades.items())[1:4])  # one right, two wrong
    some = Labelled(one.query, one.shortlist, one.scores, marked, True)
    assert sum(some.known(i) for i in range(12)) == 3
    order = sorted(range(12), key=lambda i: -one.shortlist[i].coarse)
    place = [one.shortlist[i].id for i in order if one.shortlist[i].id in marked].index(next(iter(marked)))
    assert some.value(Fusion("linear", 1.0), MEASURE) == pytest.approx(1 / (place + 1))


def test_labels_of_one_kind_fit_no_stack():
    assert fitted([Labelled(a.query, a.shortlist, a.scores, {}, False) for a in answers(3, 0.0, 0.0)]) is None


def test_few_queries_are_refused():
    with pytest.raises(UsageError, match="labels give 4"):
        Chooser({"auto": answers(4, 0.0, 1.0)}, HALF, MEASURE)


def test_marks_are_read_from_the_archive_and_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "marks.zip", "w") as archive:
        archive.writestr("queries.jsonl", '{"id": "q1", "text": "red"}\n')
        archive.writestr("qrels.txt", "q1 0 a.png 1\n")
    queries, labels = unpacked(tmp_path / "marks.zip", tmp_path / "out")
    assert labels.read_text() == "q1 0 a.png 1\n"
    assert unpacked(queries.parent, tmp_path / "other") == (queries, labels)
    (tmp_path / "no.zip").write_text("no archive")
    for wrong in (tmp_path / "no.zip", tmp_path):
        with pytest.raises(UsageError, match="the page"):
            unpacked(wrong, tmp_path / "more")
