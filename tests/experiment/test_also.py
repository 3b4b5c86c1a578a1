"""Other rerankers on the same shortlists: one more row each, with paired differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from looks import Colours, Histograms, Silent
from PIL import Image
from typer.testing import CliRunner

from looktwice.errors import Mismatch, UsageError
from looktwice.evaluate import read_run
from looktwice.evaluate.compare import compare
from looktwice.evaluate.datasets import open_dataset
from looktwice.evaluate.groups import measure_group
from looktwice.experiment import Plan, run_benchmark
from looktwice.experiment.also import _with_scores
from looktwice.experiment.result import summarise
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System
from looktwice.rank import Fusion
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.run_record import RunStats
from looktwice.types import PairScores


class Contrary(Histograms):
    """Likes what differs most: a reranker that hurts."""

    def _one(self, query, candidate):
        return 1 - super()._one(query, candidate)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("things"), np.random.default_rng(0)
    for thing in range(6):
        base = rng.integers(0, 255, (4, 4, 3))
        for number in range(3):
            pixels = np.clip(base + rng.integers(-60, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
            path = folder / f"thing {thing}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(path)
    return folder


def run(root: Path, out: Path, *others: object, **changes: object):
    plan = Plan(
        **{"encoder": Colours(), "look": MllmReranker(Histograms()), "shortlist": 6, **changes},
        also=tuple(MllmReranker(one) for one in others),
    )
    return run_benchmark(open_dataset("folder", root), out, plan, indexing=Silent(), searching=Silent())


def test_another_reranker_is_a_row_on_the_same_shortlists(root, tmp_path):
    record = run(root, tmp_path, Contrary()).outcome.record
    names = [row["system"] for row in record["systems"]]
    assert names == ["shortlist", "Contrary", "second look"]
    assert "Contrary, p alone" in [row["system"] for row in record["sweep"]]
    rows = dict(zip(names, record["systems"], strict=True))
    assert rows["Contrary"]["pairs_per_query"] == rows["second look"]["pairs_per_query"] == 6
    assert rows["Contrary"]["pairs_per_second"] > 0
    labels = open_dataset("folder", root).qrels
    found = {name: measure_group(read_run(tmp_path / f"{name}.trec"), labels, ["mAP@100"]) for name in
             ("shortlist", "second-look", "Contrary")}  # fmt: skip
    ranked = {query: {name for name, _ in rows[:6]} for query, rows in read_run(tmp_path / "Contrary.trec").items()}
    first = read_run(tmp_path / "shortlist.trec")
    assert ranked == {query: {name for name, _ in rows[:6]} for query, rows in first.items()}
    values = {name: one.per_query["mAP@100"] for name, one in found.items()}
    (other,) = record["also"]
    for against, name in (("against_shortlist", "shortlist"), ("against_second_look", "second-look")):
        expected = compare(values["Contrary"], values[name])
        assert other[against]["difference"]["mean"] == pytest.approx(expected.difference.mean)
        assert (other[against]["helped"], other[against]["hurt"]) == (len(expected.helped), len(expected.hurt))
    assert other["against_second_look"]["hurt"] > 0 > other["against_second_look"]["difference"]["mean"]


def test_without_others_nothing_is_said_of_them(root, tmp_path):
    assert "also" not in run(root, tmp_path).outcome.record


def test_an_interrupted_reranker_goes_on_where_it_stopped(root, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, Contrary(fail_after=30))
    again = Contrary()
    whole = run(root, tmp_path, again).outcome.record
    assert again.pairs == 18 * 6 - 30
    assert whole["also"] == run(root, tmp_path / "whole", Contrary()).outcome.record["also"]
    with pytest.raises(Mismatch, match="shortlists"):  # answers of other shortlists are not taken for these
        (tmp_path / "also").rename(tmp_path / "whole" / "old")
        (tmp_path / "whole" / "also" / "Contrary" / "settings.json").unlink()
        settings = json.loads((tmp_path / "whole" / "old" / "Contrary" / "settings.json").read_text())
        settings["shortlists"] = "0"
        (tmp_path / "whole" / "also" / "Contrary" / "settings.json").write_text(json.dumps(settings))
        run(root, tmp_path / "whole", Contrary())


def test_another_reranker_keeps_unreadable_candidates_apart():
    answer = StoredAnswer("q", ("a", "b", "c"), (0.9, 0.8, 0.7), (0.1, None, 0.3), missing=("b",))
    n, status = 3, ("missing", "failed", "ok")
    p = np.array([np.nan, np.nan, 0.5], np.float32)
    scores = PairScores(p, np.zeros((n, 2), np.float32), p, p, np.zeros(n, np.int64), status)
    found = _with_scores(answer, scores, RunStats())
    assert found.missing == ("a",) and found.gone == [True, False, False]


def test_lambda_is_chosen_on_the_same_queries_for_all(root, tmp_path):
    record = run(root, tmp_path, Contrary(), tune_on="40%").outcome.record
    rows = {row["system"]: row for row in record["systems"]}
    assert rows["Contrary"]["queries"] == rows["second look"]["queries"] < 18
    assert rows["Contrary"]["fusion"] != "p-only", "the coarse order is the better one here"


def test_one_name_twice_is_refused(root, tmp_path):
    with pytest.raises(UsageError, match="the same name"):
        run(root, tmp_path, Contrary(), Contrary())


def test_the_command_takes_names(root, tmp_path):
    from looktwice.cli.main import app

    asked = ["eval", "run", "folder", "--root", str(root), "--out", str(tmp_path), "--shortlist", "2", "--json"]
    done = CliRunner().invoke(app, [*asked, "--also", "tiny-vl"])
    assert done.exit_code == 0, done.output
    (other,) = json.loads(done.stdout)["also"]
    assert other["system"] == "tiny-vl"
    assert other["against_second_look"]["same"] == 18, "the same model scores the same pairs alike"
    assert CliRunner().invoke(app, [*asked, "--no-rerank", "--also", "tiny-vl"]).exit_code != 0


def test_a_middle_look_is_compared_with_both_others(root):
    """It puts every relevant item last, so it loses wherever the shortlist did not."""
    dataset = open_dataset("folder", root)
    answers = []
    for query, labels in dataset.qrels.items():
        ids = [item.id for item in dataset.items][:6] + [i for i in labels]
        ids = list(dict.fromkeys(ids))
        right = [labels.get(i, 0) > 0 for i in ids]
        maxsim = tuple(0.1 if yes else 0.9 for yes in right)
        p = tuple(0.9 if yes else 0.1 for yes in right)
        answers.append(StoredAnswer(query, tuple(ids), (0.5,) * len(ids), p, maxsim=maxsim))
    rows = [System("shortlist", None, 20), System("middle look", None, 20, middle=True)]
    rows.append(System("second look", Fusion("linear", 0.0), 20))
    found = summarise(dataset, answers, rows, known={i.id for i in dataset.items}, bytes_per_item=(1, 1))
    (middle,) = found.record["also"]
    assert middle["system"] == "middle look"
    second = middle["against_second_look"]
    assert second["hurt"] == len(answers) and second["difference"]["high"] < 0
    assert middle["against_shortlist"]["helped"] == 0
