"""A benchmark from files to figures, with models that need no weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looks import Colours, Histograms, Silent
from PIL import Image, ImageDraw

from looktwice.errors import Mismatch, StoreError, UsageError
from looktwice.evaluate import read_run
from looktwice.evaluate.datasets import open_dataset
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.trec import escape, unescape
from looktwice.experiment import Plan, run_benchmark
from looktwice.experiment.counts import added
from looktwice.experiment.plot import plot
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.stored import stored_row as _row
from looktwice.experiment.systems import WEIGHTS, System, fused, ideal, perfect, reranked, tune
from looktwice.experiment.tuning import split_queries
from looktwice.rank import Fusion, fuse, tied_at_the_top
from looktwice.report.viewer import Viewer
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats
from looktwice.sources import file_uri
from looktwice.store import Table
from looktwice.types import Candidate, Item, PairScores


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Eight things in two colours each, three pictures of each at different places, one unreadable file."""
    folder, rng = tmp_path_factory.mktemp("things"), Random(1)
    for thing in range(8):
        colours = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(2)]
        for number in range(3):
            image = Image.new("RGB", (48, 48), colours[0])
            x, y = rng.randrange(30), rng.randrange(30)
            ImageDraw.Draw(image).rectangle((x, y, x + 16, y + 16), fill=colours[1])
            path = folder / f"thing {thing}" / f"n°{number}.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff half")
    return folder


def run(root: Path, out: Path, scorer: object | None = None, **changes: object):
    dataset = open_dataset("folder", root)
    look = MllmReranker(scorer) if scorer is not None else None
    plan = Plan(**{"encoder": Colours(), "look": look, "shortlist": 8, **changes})
    return run_benchmark(dataset, out, plan, indexing=Silent(), searching=Silent())


def test_everything_is_written_and_says_the_same(root, tmp_path):
    done = run(root, tmp_path, Histograms())
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["systems"] == json.loads(json.dumps(done.outcome.rows))
    dataset = open_dataset("folder", root)
    for name, system in (("shortlist", 0), ("second-look", 1)):
        found = measure_group(read_run(tmp_path / f"{name}.trec"), dataset.qrels, ["mAP@100"])["mAP@100"]
        assert found == pytest.approx(record["systems"][system]["measures"]["mAP@100"]["mean"])
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg") > 10 and "thing 0" in page
    assert ElementTree.fromstring((tmp_path / "pareto.svg").read_text()).tag.endswith("svg")
    assert record["unreadable_items"] == 1 and done.failed == 1
    assert record["systems"][1]["pairs_per_query"] == 8 and record["systems"][0]["pairs_per_query"] == 0
    assert record["manifest"]["second_look"][0]["mllm"] == "histograms"


def test_losses_add_up_and_the_sweep_shares_the_scores(root, tmp_path):
    scorer = Histograms()
    outcome = run(root, tmp_path, scorer).outcome
    record = outcome.record
    assert set(outcome.runs) == {"shortlist", "second look"}  # lists of the sweep would fill the memory
    loss, reached = record["loss"], record["systems"][1]["measures"]["mAP@100"]["mean"]
    assert loss["best_possible"] == 1.0
    total = reached + loss["lost_by_the_second_look"] + loss["lost_by_the_shortlist"]
    assert total == pytest.approx(1.0)
    assert loss["lost_by_the_second_look"] >= 0 and loss["lost_by_the_shortlist"] >= 0
    second = record["second_look"]
    assert second["helped"] + second["hurt"] + second["same"] == 24
    assert {row["system"] for row in record["sweep"]} == {
        "fusion p-only",
        "fusion 0.25",
        "fusion 0.75",
        "fusion rrf:60",
        "shortlist 5",
    }
    assert scorer.pairs == 24 * 8


def test_what_was_lost_hurt_and_trusted_is_in_the_result_and_in_the_report(root, tmp_path):
    record = run(root, tmp_path, Histograms(), fusion="p-only").outcome.record
    page = (tmp_path / "report.html").read_text()
    second = record["second_look"]
    assert second["hurt"] == len(second["hurt_queries"]) and second["hurt"] + second["helped"] > 0
    for query, _ in second["hurt_queries"]:
        assert query.replace("&", "&amp;") in page
    assert "Where mAP@100 was lost" in page and "lost by the shortlist" in page
    assert page.count("data:image/svg+xml") == 2  # quality against cost, reliability
    trust = record["reliability"]
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    junk = sum(answer["query"] in answer["ids"] for answer in answers)
    assert trust["pairs"] == 24 * 8 - junk == sum(n for _, _, n in trust["points"])
    assert trust["relevant"] == round(sum(share * n for _, share, n in trust["points"]))
    assert 0 < trust["ece"] < 1 and "calibration error" in page
    ElementTree.fromstring((tmp_path / "reliability.svg").read_text())


def test_the_pareto_front_holds_what_nothing_beats(root, tmp_path):
    record = run(root, tmp_path, Histograms()).outcome.record
    rows = {row["system"]: row for row in [*record["systems"], *record["sweep"]]}
    for cost, names in record["pareto"].items():
        for name, row in rows.items():
            better = [
                other
                for other in rows.values()
                if other["measures"]["mAP@100"]["mean"] >= row["measures"]["mAP@100"]["mean"]
                and other[cost] <= row[cost]
                and (other["measures"]["mAP@100"]["mean"], -other[cost])
                != (row["measures"]["mAP@100"]["mean"], -row[cost])
            ]
            assert not (name in names and better) and (name in names or better or len(rows) > len(names))
    assert set(record["pareto"]) == {"seconds_per_query", "pairs_per_query", "bytes_per_item"}


def test_a_finished_run_is_read_and_not_asked_again(root, tmp_path):
    first = run(root, tmp_path, Histograms())
    scorer = Histograms()
    second = run(root, tmp_path, scorer, fusion="p-only")  # another fusion needs no new scores
    assert scorer.pairs == 0
    assert first.outcome.runs["shortlist"] == second.outcome.runs["shortlist"]
    assert first.outcome.runs["second look"] != second.outcome.runs["second look"]


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(root, tmp_path):
    whole = run(root, tmp_path / "whole", Histograms())
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "cut", Histograms(fail_after=50))
    lines = (tmp_path / "cut/answers.jsonl").read_bytes()
    assert 0 < lines.count(b"\n") < 24
    (tmp_path / "cut/answers.jsonl").write_bytes(lines + b'{"query": "half a li')  # killed while writing
    scorer = Histograms()
    cut = run(root, tmp_path / "cut", scorer)
    assert scorer.pairs == (24 - lines.count(b"\n")) * 8
    assert cut.outcome.runs == whole.outcome.runs


class Counting(Histograms):
    """Says how many pairs it has seen, as the fast path does of retrace."""

    def settings(self):
        told = {"setting": "causal", "pairs": self.pairs, "trigger_rate": 1.0, "layers": {1: self.pairs}}
        return {**super().settings(), "retrace": {**told, "delta_to_ffn": math.inf if self.pairs > 100 else 0.5}}


def test_what_is_counted_is_counted_over_all_queries_and_processes(root, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, Counting(fail_after=50))
    record = run(root, tmp_path, Counting()).outcome.record
    assert json.loads((tmp_path / "result.json").read_text())["manifest"] == record["manifest"]
    retrace = record["manifest"]["second_look"][0]["retrace"]
    assert retrace == {
        "setting": "causal", "pairs": 24 * 8, "trigger_rate": 1.0, "layers": {"1": 24 * 8}, "delta_to_ffn": 0.5,
    }  # fmt: skip
    assert run(root, tmp_path, Counting()).outcome.record["manifest"]["second_look"][0]["retrace"] == retrace


def test_counts_of_two_processes_are_added_source_by_source():
    first = {"k": 3, "second_look": [{"prompt": "a"}], "candidates_from": [{"codec": "x", "counts": {"stored": 2}}]}
    now = {
        "k": 4, "second_look": [{"prompt": "b"}],
        "candidates_from": [{"codec": "y", "counts": {"old": 1}}, {"codec": "x", "counts": {"stored": 1, "old": 1}}],
    }  # fmt: skip
    assert added(first, first, now) == {
        "k": 3, "second_look": [{"prompt": "a"}, {"prompt": "b"}],
        "candidates_from": [{"codec": "x", "counts": {"stored": 3, "old": 1}}, {"codec": "y", "counts": {"old": 1}}],
    }  # fmt: skip
    assert added(first, {}, first) == first and added({"second_look": None}, {}, {"second_look": None})


def test_requests_to_servers_of_two_processes_are_added() -> None:
    look = {"prompt": "object", "prompt_hash": "1", "mode": "p-label"}
    first = {"second_look": [{**look, "requests": {"setting": None, "requests": 5, "cost": 0.5}}]}
    second = {"second_look": [{**look, "requests": {"setting": None, "requests": 7, "cost": 0.25, "bounded": 2}}]}
    (record,) = added(second, first, second)["second_look"]
    assert record["requests"] == {"setting": None, "requests": 12, "cost": 0.75, "bounded": 2}


def test_the_manifest_counts_all_queries(root, tmp_path):
    record = run(root, tmp_path, Histograms()).outcome.record
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    spent = record["manifest"]["seconds"]
    for stage in ("encode", "search", "read", "score"):
        assert spent[stage] == pytest.approx(sum(line["seconds"][stage] for line in lines), abs=1e-4)
    assert record["manifest"]["candidates"]["requested"] == sum(len(line["p"]) for line in lines) == 24 * 8
    twice = next(row for row in record["systems"] if row["system"] == "second look")
    assert record["manifest"]["pairs_per_second"] == pytest.approx(twice["pairs_per_second"], rel=0.01)


MINE = """
name = "mine"
segments = [{ part = "query.image" }, { part = "candidate.image" }, "Same?"]
labels = [{ name = "1", value = 1.0 }, { name = "0", value = 0.0 }]
"""


def test_another_question_in_the_same_prompt_file_is_refused(root, tmp_path):
    prompt = tmp_path / "my.toml"

    def ask():
        plan = Plan(Colours(), MllmReranker(Histograms(), prompt=str(prompt)), shortlist=8)
        return run_benchmark(
            open_dataset("folder", root), tmp_path / "out", plan, indexing=Silent(), searching=Silent()
        )

    prompt.write_text(MINE)
    ask()
    ask()
    prompt.write_text(MINE.replace("Same", "Different"))
    with pytest.raises(Mismatch, match="prompt_hash"):
        ask()


@pytest.mark.parametrize(("changed", "message"), [("query", "has changed"), ("item", "contents")])
def test_other_pictures_under_the_same_ids_are_refused(root, tmp_path, changed, message):
    dataset, look = open_dataset("folder", root), MllmReranker(Histograms())
    path = tmp_path / "copy.png"
    path.write_bytes((root / "thing 0" / "n°0.png").read_bytes())

    def elsewhere(source):
        return replace(source, uri=file_uri(path)) if source.uri.endswith("thing%200/n%C2%B00.png") else source

    def ask():
        plan = Plan(Colours(), look, shortlist=8)
        if changed == "query":
            mine = replace(dataset, queries=[replace(q, source=elsewhere(q.source)) for q in dataset.queries])
        else:
            mine = replace(dataset, items=[elsewhere(one) for one in dataset.items])
        return run_benchmark(mine, tmp_path / "out", plan, indexing=Silent(), searching=Silent())

    ask()
    ask()
    path.write_bytes((root / "thing 1" / "n°0.png").read_bytes())
    with pytest.raises(Mismatch, match=message):
        ask()


def test_report_cards_measure_as_the_result_does(root, tmp_path):
    """Junk leaves a list before it is measured, in either place."""
    dataset = open_dataset("folder", root)
    done = run(root, tmp_path / "first", Histograms())
    lines = {row["query"]: row for row in map(json.loads, (tmp_path / "first/answers.jsonl").read_text().splitlines())}
    qrels = {query: {**labels, unescape(lines[escape(query)]["ids"][0]): -1} for query, labels in dataset.qrels.items()}
    find = Retriever(Table.open(tmp_path / "first" / "items.lt"), Colours()).loader.find
    viewer = Viewer(find, qrels, dataset.measures)
    assert done.failed
    for query in dataset.queries[:4]:
        stored = _row(lines[escape(query.id)])
        listed = [Candidate(*row) for row in zip(stored.ids, stored.coarse, strict=True)]
        answer = Answer(query.load(), listed, fuse(listed, None), 10, {}, RunStats())
        run_of = {query.id: [(one.id, one.coarse) for one in listed]}
        name = dataset.measures[0]
        expected = measure_group(run_of, {query.id: qrels[query.id]}, [name])[name]
        assert viewer.view(answer).before[name] == pytest.approx(expected)


def test_tuning_keeps_apart_what_shares_anything_relevant():
    qrels = {f"q{i}": {"common": 1, f"own{i}": 1} for i in range(40)}
    with pytest.raises(UsageError, match="leaves one side"):
        split_queries("20%", qrels)
    pairs = {
        f"q{i}": {f"a{i}": 1, f"a{i + i % 2}": 1} for i in range(60)
    }  # q1 shares a2 with q2, q3 shares a4 with q4 …
    split = split_queries("40%", pairs)
    for i in range(1, 59, 2):
        assert (f"q{i}" in split.tuned_on) == (f"q{i + 1}" in split.tuned_on)


def test_other_settings_are_refused_with_what_changed(root, tmp_path):
    run(root, tmp_path, Histograms())
    with pytest.raises(Mismatch, match="shortlist 8 → 5"):
        run(root, tmp_path, Histograms(), shortlist=5)
    with pytest.raises(Mismatch, match="codec 'auto' → 'images'"):
        run(root, tmp_path, Histograms(), codec="images")
    with pytest.raises(Mismatch, match="ties None → 'coarse'"):
        run(root, tmp_path, Histograms(), ties="coarse")
    with pytest.raises(Mismatch, match="second_look"):
        run(root, tmp_path)


def test_another_way_of_looking_is_refused(root, tmp_path):
    dataset = open_dataset("folder", root)

    def ask(**options: object):
        plan = Plan(Colours(), MllmReranker(Histograms(), **options), shortlist=8)
        return run_benchmark(dataset, tmp_path, plan, indexing=Silent(), searching=Silent())

    ask(score_mode="p-label", retrace="off", batch_size=4)
    ask(batch_size=8, resolution=None)
    for options in ({"score_mode": "written"}, {"retrace": "causal"}, {"resolution": 448}, {"prior": "query"}):
        with pytest.raises(Mismatch, match=next(iter(options))):
            ask(**options)


def test_other_queries_under_the_same_ids_are_refused(root, tmp_path):
    dataset = open_dataset("folder", root)
    plan = Plan(Colours(), MllmReranker(Histograms()), shortlist=8)
    run_benchmark(dataset, tmp_path, plan, indexing=Silent(), searching=Silent())
    first = replace(dataset.queries[0], box=(0, 0, 8, 8))
    cropped = replace(dataset, queries=[first, *dataset.queries[1:]])
    with pytest.raises(Mismatch, match="asked"):
        run_benchmark(cropped, tmp_path, plan, indexing=Silent(), searching=Silent())
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["asked"]  # as an earlier version left it
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    run_benchmark(dataset, tmp_path, plan, indexing=Silent(), searching=Silent())
    assert "asked" in json.loads((tmp_path / "settings.json").read_text())


def test_pairs_without_a_score_and_empty_groups_are_counted(root, tmp_path):
    class Refusing(Histograms):
        def score(self, query, candidates):
            scores = super().score(query, candidates)
            p, status = scores.p.copy(), list(scores.status)
            p[0], status[0] = np.nan, "parse_error"
            return replace(scores, p=p, status=tuple(status))

    dataset = open_dataset("folder", root)
    dataset = replace(dataset, groups={"empty": {query: {} for query in dataset.qrels}, "all": dataset.qrels})
    plan = Plan(Colours(), MllmReranker(Refusing()), shortlist=8)
    record = run_benchmark(dataset, tmp_path, plan, indexing=Silent(), searching=Silent()).outcome.record
    assert record["problems"]["pairs_without_a_score"] == 24 and record["reliability"]["pairs"] <= 24 * 7
    assert record["problems"]["groups_without_relevant_items"] == 1 and set(record["groups"]) == {"all"}
    ranked = read_run(tmp_path / "second-look.trec")
    first = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    for answer in first:
        lost = [name for name, p in zip(answer["ids"], answer["p"], strict=False) if p is None]
        scored = [name for name, p in zip(answer["ids"], answer["p"], strict=False) if p is not None]
        names = [name for name, _ in ranked[unescape(answer["query"])]]
        assert names.index(unescape(lost[0])) > max(names.index(unescape(name)) for name in scored)


def test_other_weights_under_the_same_name_are_refused(root, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path, Histograms(fail_after=50))
    with pytest.raises(Mismatch, match="holds scores of"):
        run(root, tmp_path, Histograms(revision="2"))


def test_a_damaged_line_is_named(root, tmp_path):
    run(root, tmp_path, Histograms())
    path = tmp_path / "answers.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], '{"query": 1}\n', *lines[2:]]))
    with pytest.raises(StoreError, match="line 2 is damaged"):
        run(root, tmp_path, Histograms())


def test_the_shortlist_alone(root, tmp_path):
    record = run(root, tmp_path).outcome.record
    assert [row["system"] for row in record["systems"]] == ["shortlist"]
    assert "loss" not in record and record["sweep"] == []


def test_tuning_never_reports_what_it_was_tuned_on(root, tmp_path):
    record = run(root, tmp_path, Histograms(), tune_on="40%").outcome.record
    tuned, reported = record["tuning"]["queries"], record["systems"][0]["queries"]
    assert tuned + reported == 24 and tuned >= 3 and reported >= 3
    assert record["tuning"]["rule"] == "40%" and set(record["tuning"]["values"]) == {str(w) for w in WEIGHTS}
    assert record["manifest"]["fusion"] == record["tuning"]["fusion"] == record["systems"][1]["fusion"]


def test_labels_and_files_with_trouble_are_counted(root, tmp_path):
    dataset = open_dataset("folder", root)
    first, second, third = list(dataset.qrels)[:3]
    qrels = {**dataset.qrels, first: {**dataset.qrels[first], "not/there.png": 1}, second: {}}
    gone = replace(dataset.queries[2], source=replace(dataset.queries[2].source, uri="file:///nowhere/x.png"))
    assert dataset.queries[2].id == third
    queries = [gone if query.id == third else query for query in dataset.queries]
    plan = Plan(Colours(), MllmReranker(Histograms()), shortlist=8)
    changed = replace(dataset, qrels=qrels, queries=queries)
    done = run_benchmark(changed, tmp_path, plan, indexing=Silent(), searching=Silent())
    problems = done.outcome.record["problems"]
    assert problems["relevant_items_outside_the_table"] == 1 and problems["such_as"] == ["not/there.png"]
    assert problems["queries_without_relevant_items"] == 1
    assert problems["queries_without_an_answer"] == 1 and done.outcome.after[third] == 0
    assert list(done.outcome.record["unreadable_queries"]) == [third]


def test_the_wrong_table_is_refused(root, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    (tmp_path / "pictures/a").mkdir(parents=True)
    for name in ("x", "y"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"pictures/a/{name}.png")
    run(tmp_path / "pictures", tmp_path / "one")
    plan = Plan(Colours())
    dataset = open_dataset("folder", root)
    table = tmp_path / "one/items.lt"
    with pytest.raises(UsageError, match="pass its own --table"):
        run_benchmark(dataset, tmp_path / "two", plan, table=table, indexing=Silent(), searching=Silent())


ANSWERS = st.builds(
    lambda n, coarse, p, scored: StoredAnswer(
        "q", tuple(f"d{i}" for i in range(n)), tuple(sorted(coarse[:n], reverse=True)), tuple(p[: min(n, scored)])
    ),
    st.integers(1, 9),
    st.lists(st.floats(-1, 1, width=16), min_size=9, max_size=9),
    st.lists(st.one_of(st.none(), st.floats(0, 1, width=16)), min_size=9, max_size=9),
    st.integers(0, 9),
)


@given(ANSWERS, st.sets(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_no_second_look_beats_the_perfect_one(answer, relevant, depth):
    qrels = {"q": {f"d{i}": 1 for i in relevant}}
    bound = measure_group(perfect([answer], qrels, depth), qrels, ["mAP@9"])["mAP@9"]
    assert measure_group(ideal(qrels), qrels, ["mAP@9"])["mAP@9"] == 1
    for fusion in (Fusion.parse("0.5"), Fusion.parse("p-only"), Fusion.parse("rrf")):
        run = fused([answer], System("x", fusion, depth))
        assert sorted(name for name, _ in run["q"]) == sorted(answer.ids)
        assert measure_group(run, qrels, ["mAP@9"])["mAP@9"] <= bound + 1e-12


def scored(values, entropies, status="ok"):
    p, told = np.array(values, np.float32), np.array(entropies, np.float32)
    n = len(p)
    return PairScores(p, np.zeros((n, 2), np.float32), told, told, np.zeros(n, np.int64), (status,) * n)


@given(
    st.lists(st.sampled_from([0.1, 0.9, 0.9996, 0.9991]), min_size=4, max_size=4),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=4, max_size=4),
    st.sampled_from(["default", "coarse", "paper", "repaired", "released-code"]),
    st.sampled_from(["p-only", "0.5", "rrf"]),
    st.lists(st.sampled_from(["ok", "ok", "missing", "failed"]), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_stored_answers_are_ranked_as_the_search_ranked_them(p, entropies, ties, fusion, status):
    """Ties by entropy and by a second question too, and unreadable candidates, through the file."""
    shortlist = [Candidate(f"d {i}", c) for i, c in enumerate((0.9, 0.9, 0.5, 0.1, 0.05))]
    p = [value if known == "ok" else math.nan for value, known in zip(p, status, strict=True)]
    scores = replace(scored(p, entropies), status=tuple(status))
    asked = tied_at_the_top(shortlist, scores, fusion, ties)
    second = scored([0.2 + 0.2 * i for i in range(4)], entropies[::-1])
    second = replace(second, status=tuple("ok" if i in asked else "missing" for i in range(4))) if asked else None
    hits = fuse(shortlist, scores, fusion, ties=ties, second=second, explain=True)
    row = StoredAnswer.of(Answer(Item("q"), shortlist, hits, 10, {}, RunStats()), 4)
    again = _row(json.loads(json.dumps(row.record())))
    assert again == row and again.stats.status == Counter(status)
    found = reranked(again, System("x", Fusion.parse(fusion), 4, ties))
    assert [(hit.id, hit.score, hit.p) for hit in found] == [(hit.id, hit.score, hit.p) for hit in hits]


def test_an_unreadable_candidate_keeps_its_place_in_a_benchmark_too():
    """As in a search; a pair that failed sinks. Files of earlier versions name no missing ones."""
    stored = StoredAnswer("q", tuple("abcd"), (0.9, 0.8, 0.7, 0.6), (None, 0.2, 0.9, 0.1), missing=("a",))
    system = System("second look", Fusion.parse("0.5"), 4)
    assert [hit.id for hit in reranked(stored, system)] == ["a", "c", "b", "d"]
    old = _row({name: value for name, value in stored.record().items() if name != "missing"})
    assert [hit.id for hit in reranked(old, system)] == ["c", "b", "d", "a"] and not old.missing


def test_tuning_finds_the_weight_that_is_best():
    good = StoredAnswer("q", ("a", "b", "c"), (0.9, 0.8, 0.1), (0.1, 0.2, 0.9))
    fusion, values = tune([good], {"q": {"c": 1}}, "mAP@3", 3)
    assert values["p-only"] == 1.0 and values["1"] == pytest.approx(1 / 3)
    assert fusion == Fusion.parse("0.4")  # the nearest to one half among the best
    with pytest.raises(UsageError, match="needs a second look"):
        tune([StoredAnswer("q", ("a",), (0.5,), ())], {"q": {"a": 1}}, "mAP@3", 3)


def test_queries_with_the_same_answers_stay_on_one_side(tmp_path):
    qrels = {f"q{i}": {f"thing {i // 3}": 1, f"q{i}": -1} for i in range(300)}
    split = split_queries("30%", qrels)
    assert not split.tuned_on & split.reported and 50 < len(split.tuned_on) < 130
    for thing in range(100):
        assert len({f"q{3 * thing + j}" in split.tuned_on for j in range(3)}) == 1
    (tmp_path / "ids.txt").write_text("q1\nq2\n")
    assert split_queries(str(tmp_path / "ids.txt"), qrels).tuned_on == {"q1", "q2"}


@pytest.mark.parametrize(("rule", "complaint"), [("0%", "one side"), ("half", "neither"), ("120%", "neither")])
def test_splits_that_make_no_sense_are_refused(rule, complaint, tmp_path):
    with pytest.raises(UsageError, match=complaint):
        split_queries(rule, {"a": {"x": 1}, "b": {"y": 1}})
    (tmp_path / "ids").write_text("stranger\n")
    with pytest.raises(UsageError, match="'stranger'"):
        split_queries(str(tmp_path / "ids"), {"a": {"x": 1}, "b": {"y": 1}})


def test_plots_are_valid_and_escape_names():
    text = plot({"<a & b>": [(0, 0.5), (1, 0.2)], "empty": []}, title="t < u", x="x", y="y")
    assert "<a & b>" not in text
    assert len(ElementTree.fromstring(text).findall(".//{*}polyline")) == 2
    ElementTree.fromstring(plot({}, title="", x="", y=""))
    dashed = plot({}, title="", x="", y="", guide=[(0, 0), (2, 4)])
    assert "dasharray" in dashed and len(ElementTree.fromstring(dashed).findall(".//{*}polyline")) == 1
    many = plot({str(i): [(i, i)] for i in range(14)}, title="", x="", y="", joined=False)
    assert many.count('fill="none" stroke=') == 14  # 7 colours twice: a mark and its key, hollow the second time
