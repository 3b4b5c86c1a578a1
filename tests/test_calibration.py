"""Calibration, the budget that stops early, and directions."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.rank import Fusion, Tuned, calibration
from looktwice.rank.budget import Budget, chance_of_a_miss
from looktwice.rank.calibration import Calibration, Sample, ece, fit, reliability, source_of
from looktwice.rank.precision import thresholds
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.modalities import NAMES, Direction, inferred
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats
from looktwice.sources.loader import CandidateRef
from looktwice.store import Row, Table
from looktwice.testing import BrightnessScorer, ColorEncoder
from looktwice.types import Candidate, Hit, Item

SOURCE = {"mllm": "m", "prompt_hash": "0", "tokens": ""}


def samples(n: int = 400, truth: Any = lambda p: p**3) -> list[Sample]:
    rng = np.random.default_rng(0)
    p = rng.random(n)
    labels = rng.random(n) < truth(p)
    gaps = np.where(labels, rng.exponential(0.05, n), rng.exponential(0.3, n))
    return [Sample(f"q{i % 40}", float(p[i]), float(gaps[i]), bool(labels[i])) for i in range(n)]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_fit_brings_the_error_down_on_queries_it_has_not_seen(method: str) -> None:
    made = fit(samples(2000), SOURCE, method)
    assert made.quality["ece_before"] > 0.2 and made.quality["ece_after"] < 0.06
    grid = [made.probability(x / 20) for x in range(21)]
    assert all(0 <= x <= 1 for x in grid) and grid == sorted(grid)


def test_platt_finds_the_curve_that_made_the_labels() -> None:
    def truth(p: Any) -> Any:
        return 1 / (1 + np.exp(-(2 * np.log(p / (1 - p)) - 1)))

    ((a, b),) = fit(samples(6000, truth), SOURCE).curve
    assert (a, b) == pytest.approx((2, -1), abs=0.25)


def test_auto_takes_the_method_that_unseen_queries_fit() -> None:
    def step(p: Any) -> Any:
        return np.where(p < 0.3, 0.05, np.where(p < 0.7, 0.9, 0.92))

    assert fit(samples(4000, step), SOURCE, "auto").method == "isotonic"
    few = samples(60, lambda p: p)
    made = fit(few, SOURCE, "auto")
    assert made.method == "platt" and made.curve == fit(few, SOURCE, "platt").curve


def test_auto_never_measures_on_queries_that_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method of a fold is chosen on the other folds alone."""
    found, chosen_on = samples(400), []
    plain = calibration._better

    def watched(pairs: Any, groups: Any) -> str:
        chosen_on.append({pair.query for pair in pairs})
        return plain(pairs, groups)

    monkeypatch.setattr(calibration, "_better", watched)
    fit(found, SOURCE, "auto")
    assert sorted(map(len, chosen_on)) == [32, 32, 32, 32, 32, 40]
    assert set.union(*[{f"q{i}" for i in range(40)} - on for on in chosen_on]) == {f"q{i}" for i in range(40)}


@pytest.mark.parametrize("spread", [1.0, 0.01, 0.001])
def test_the_fit_is_the_best_there_is_for_saturated_scores_and_narrow_gaps(spread: float) -> None:
    rng = np.random.default_rng(1)
    relevant = rng.random(3000) < 0.01
    wrong = rng.random(3000) < 0.02  # an MLLM's p is mostly 0 or 1
    p = np.where(relevant ^ wrong, 1.0, 0.0)
    gaps = np.abs(rng.normal(0, spread, 3000)) * np.where(relevant, 0.3, 1.0)
    made = fit([Sample(f"q{i % 40}", *map(float, (p[i], gaps[i])), bool(relevant[i])) for i in range(3000)], SOURCE)
    for value in (0.0, 1.0):
        assert made.probability(value) == pytest.approx(relevant[p == value].mean(), abs=0.02)
    scaled = fit(
        [Sample(f"q{i % 40}", float(p[i]), float(gaps[i] / spread), bool(relevant[i])) for i in range(3000)], SOURCE
    )
    assert made.gap == pytest.approx((scaled.gap[0] / spread, scaled.gap[1]))  # in whatever unit gaps come


def test_ece_by_hand() -> None:
    assert ece([0.95, 0.95, 0.05, 0.05], [True, False, False, False]) == pytest.approx((0.45 * 2 + 0.05 * 2) / 4)
    assert reliability([1.0, 0.0], [True, False]) == [(0.0, 0.0, 1), (1.0, 1.0, 1)]


def test_thresholds_keep_their_precision_and_the_unreachable_is_refused() -> None:
    made = fit(samples(4000), SOURCE)
    for precision, least in made.thresholds.items():
        shown = [s.relevant for s in samples(4000) if s.p >= least]
        assert np.mean(shown) >= float(precision)
    assert "0.8" in made.thresholds and "0.99" not in made.thresholds
    with pytest.raises(UsageError, match=r"cannot promise a precision of 0\.99"):
        made.threshold(0.99)


def worlds(seed: int, queries: int, spread: float) -> list[Sample]:
    """Pairs whose queries differ in difficulty: one shift of the log-odds a query."""
    rng = np.random.default_rng(seed)
    z, shift = rng.normal(-3, 3, (queries, 50)), rng.normal(0, spread, (queries, 1))
    relevant = rng.random(z.shape) < 1 / (1 + np.exp(-(z + shift)))
    p = 1 / (1 + np.exp(-z))
    return [Sample(f"q{q}", float(p[q, i]), 0.1 * i, bool(relevant[q, i])) for q in range(queries) for i in range(50)]


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_a_promised_precision_holds_where_queries_differ(spread: float) -> None:
    """An interval over pairs promised too much here: it takes fifty pairs of one easy query for fifty witnesses."""
    others = worlds(999, 2000, spread)
    missed = given = 0
    for seed in range(20):
        made = thresholds([(s.query, s.p, s.relevant) for s in worlds(seed, 150, spread)], [0.9])
        if "0.9" in made:
            given += 1
            missed += np.mean([s.relevant for s in others if s.p >= made["0.9"]]) < 0.9
    assert given >= 12 and missed <= 1


def test_few_queries_that_are_all_right_promise_little() -> None:
    pairs = [(f"q{q}", 0.9, True) for q in range(8) for _ in range(100)]
    assert set(thresholds(pairs, [0.5, 0.8, 0.9, 0.99])) == {"0.5", "0.8"}
    assert thresholds(pairs[:300], [0.5]) == {}  # three queries are too few for anything
    many = [(f"q{q}", 0.9, True) for q in range(200) for _ in range(5)]
    assert set(thresholds(many, [0.5, 0.9, 0.99])) == {"0.5", "0.9", "0.99"}


def test_a_precision_that_fails_on_held_out_queries_is_refused() -> None:
    """What a fifth of the queries does not bear out is not promised, though all together reach it."""
    from looktwice.rank import precision as module

    hits, shown = np.array([[9.0], [9.0], [0.0]]), np.array([[9.0], [9.0], [9.0]])
    parts = [(np.array([False, False, True]), np.array([1.0])), (np.array([True, False, False]), np.array([1.0]))]
    assert module._holds(hits, shown, parts, 0.5) and not module._holds(hits, shown, parts, 0.6)
    assert not module._holds(hits, shown, [(np.array([True, True, True]), np.array([0.0]))], 0.5)


def test_thresholds_stop_at_the_first_failure_after_a_pass() -> None:
    from looktwice.rank.precision import _least

    assert _least(np.array([np.nan, 0.95, 0.93, 0.8, 0.99]), 0.9) == 2
    assert _least(np.array([np.nan, 0.5]), 0.9) is None and _least(np.array([0.95, 0.9]), 0.9) == 1


def test_queries_that_share_a_relevant_item_are_one_group() -> None:
    """Twenty queries of one object are one witness, however often it is asked for."""
    pairs = [replace(s, item="cup" if s.relevant else f"{s.query}-{i}") for i, s in enumerate(samples(400))]
    assert fit(samples(400), SOURCE).quality["ece_after"] is not None
    one = fit(pairs, SOURCE)
    assert one.quality["ece_after"] is None and one.quality["held_out"] == 0 and one.thresholds == {}
    assert one.quality["queries"] == 40


def test_a_fold_without_both_labels_elsewhere_is_not_held_out() -> None:
    pairs = [Sample(f"q{q}", 0.5 + 0.01 * q, 0.1, relevant=q == 0) for q in range(5) for _ in range(4)]
    made = fit(pairs, SOURCE)
    assert made.quality["held_out"] == 16 and made.quality["pairs"] == 20
    assert sum(n for _, _, n in made.quality["reliability_after"]) == 16


def test_it_is_kept_whole_and_refused_elsewhere(tmp_path: Path) -> None:
    made = fit(samples(), SOURCE)
    made.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert (again.curve, again.gap, again.relevant) == (made.curve, made.gap, made.relevant)
    assert again.probability(0.7) == made.probability(0.7)
    again.check(SOURCE)
    for other in ({**SOURCE, "prompt_hash": "1"}, {**SOURCE, "retrace": "paper"}, {"mllm": "m"}):
        with pytest.raises(Mismatch):
            again.check(other)
    (tmp_path / "c.json").write_text("[1, 2")
    with pytest.raises(UsageError, match="Cannot read the calibration"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    "change",
    [
        {"curve": []},
        {"curve": [[1, 2], [3, 4]]},
        {"curve": [[float("nan"), 0]]},
        {"curve": [[10**400, 0]]},
        {"curve": [["a", "b"]]},
        {"curve": {"a": 1}},
        {"method": "isotonic", "curve": []},
        {"method": "isotonic", "curve": [[0.5, 0.5], [0.1, 0.6]]},
        {"method": "isotonic", "curve": [[0.1, 7]]},
        {"method": "magic"},
        {"method": ["platt"]},
        {"gap": [1]},
        {"gap": [float("inf"), 0]},
        {"gap": "ab"},
        {"relevant": [0.5, 0.1]},
        {"relevant": [2]},
        {"relevant": 7},
        {"thresholds": {"0.9": "high"}},
        {"thresholds": []},
        {"source": []},
        {"quality": None},
        {"format": True},
        {"more": 1},
    ],
)
def test_one_edited_by_hand_is_refused_in_a_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    fit(samples(), SOURCE).save(tmp_path / "c.json")
    body = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**body, **change}))
    with pytest.raises(UsageError, match="Cannot read the calibration") as caught:
        Calibration.load(tmp_path / "c.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ["[" * 10**5, '{"format": ' + "9" * 5000 + "}", "[]", "1", '"x"', "null", "\ud800"])
def test_what_is_no_calibration_at_all(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match="Cannot read the calibration"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    "change",
    [{"candidates_from": [{"tokens_key": "k", "asymmetric": True}]}, {"second_look": [{"repetition_penalty": 1.05}]}],
)
def test_what_changes_p_is_part_of_the_source(change: dict[str, Any]) -> None:
    usual = {
        "second_look": [{"repetition_penalty": 1.0}],
        "candidates_from": [{"tokens_key": "k", "asymmetric": False}],
    }
    made = fit(samples(), source_of(usual))
    made.check(source_of(usual))
    with pytest.raises(Mismatch):
        made.check(source_of({**usual, **change}))


def test_junk_is_no_sample() -> None:
    ranking = [Hit(name, i, 0.5, 0.5, 0.9, True) for i, name in enumerate("abc", 1)]
    shortlist = [Candidate(hit.id, hit.coarse) for hit in ranking]
    found = Answer(Item("q"), shortlist, ranking, 3, {}, RunStats()).samples({"a": 1, "b": -1})
    assert [sample.relevant for sample in found] == [True, False]


def test_too_few_labels_are_refused() -> None:
    for pairs in ([], [s for s in samples() if s.relevant], [s for s in samples() if s.query == "q1"]):
        with pytest.raises(UsageError, match="more labels"):
            fit(pairs, SOURCE)
    with pytest.raises(UnknownName):
        fit(samples(), SOURCE, "beta")
    with pytest.raises(UsageError, match=r"these queries take a and b; .*one prompt for all"):
        source_of({"second_look": [{"prompt": "a"}, {"prompt": "b"}]})


ODDS: Any = SimpleNamespace(relevance=lambda gap: 0.2 if gap < 0.3 else 0.0, survival=lambda p: 1 - max(0.0, p))


def chance(scored: Any, rest: list[float], top: int = 1, fusion: str = "p-only") -> float:
    candidates = [Candidate(str(i), c) for i, c in enumerate(rest)]
    return chance_of_a_miss(scored, candidates, 1.0, top, Fusion.parse(fusion), ODDS)


def test_the_chance_of_a_miss_by_hand() -> None:
    assert chance([(1.0, 0.75)], [0.9, 0.8, 0.1]) == pytest.approx(1 - (1 - 0.2 * 0.25) ** 2)
    assert chance([(1.0, 0.75)], [0.9], top=2) == 1.0 and chance([], []) == 0.0
    # λ = 0.5: the best is at 0.875, so a candidate at 0.8 needs p > 0.95, one at 0.7 more than 1
    assert chance([(1.0, 0.75)], [0.8, 0.7], fusion="0.5") == pytest.approx(0.2 * 0.05)
    # log-odds: one at 0.95 needs 0.05 more of the scale, which is 0.8 in log-odds: from 3 to 3 · e^0.8
    needed = 3 * math.exp(0.8) / (1 + 3 * math.exp(0.8))
    assert chance([(1.0, 0.75)], [0.95], fusion="coarse=0.5,odds=0.5") == pytest.approx(0.2 * (1 - needed))
    with pytest.raises(UsageError, match="rrf"):
        chance([(1.0, 0.75)], [0.9], fusion="rrf")


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_the_chance_falls_with_a_better_best_and_with_less_left(rest: list[float], p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert 0 <= chance([(1.0, high)], rest) <= chance([(1.0, low)], rest) + 1e-12 <= 1 + 1e-12
    assert chance([(1.0, p)], rest[1:]) <= chance([(1.0, p)], rest) + 1e-12


@pytest.mark.parametrize("text", ["auto", "auto:0", "auto:1", "auto:x", "auto:0.1@0", "some", "all:1", "auto:nan"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Budget.parse(text)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """40 pictures that get darker; the coarse order is the order of brightness."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = []
    made = Table.create(tmp_path / "t.lt", ColorEncoder.info, roots=[str(pictures)])
    for i in range(40):
        path = pictures / f"{i:02}.png"
        Image.new("RGB", (8, 6), (250 - 5 * i, 3 * i, 0)).save(path)
        vector = ColorEncoder().encode([Item("x", image=Image.open(path).convert("RGB"))])[0]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(Row(f"{i:02}", path.as_uri(), digest, 8, 6, f"number {i}", {}, vector))
    with made.writer():
        made.add(rows)
    return made


def of_the_table(table: Table, **options: Any) -> tuple[Any, BrightnessScorer]:
    scorer = BrightnessScorer()
    retriever = Retriever(table, ColorEncoder(), scorer, shortlist=40, **options)
    return retriever.search({"text": "red"}, k=3), scorer


def test_a_budget_stops_when_the_rest_no_longer_matters(table: Table) -> None:
    full, scorer = of_the_table(table)
    assert len(scorer.shown) == 40
    source = source_of(full.settings)
    sharp = replace(fit(samples(), source), gap=(-200.0, 0.0))
    early, scorer = of_the_table(table, calibration=sharp, budget="auto:0.01")
    assert 8 <= len(scorer.shown) < 40 and len(scorer.shown) % 8 == 0
    assert [h.id for h in early.hits] == [h.id for h in full.hits]
    assert early.manifest["candidates"]["requested"] == len(scorer.shown) and early.manifest["budget"] == "auto:0.01"
    assert [h.scored for h in early.ranking].index(False) == len(scorer.shown), "the rest stays below"
    assert early.hits[0].explain["calibrated"] == pytest.approx(sharp.probability(early.hits[0].p))
    _never, scorer = of_the_table(
        table, calibration=replace(sharp, gap=(0.0, 5.0)), fusion="p-only", budget="auto:0.01"
    )
    assert len(scorer.shown) == 40


def test_a_foreign_calibration_is_refused_before_it_is_used(table: Table) -> None:
    with pytest.raises(Mismatch, match="calibrate again"):
        of_the_table(table, calibration=fit(samples(), SOURCE), budget="auto:0.01")
    for options in ({"budget": "auto:0.01"}, {"min_precision": 0.9}, {"budget": "auto:0.01", "fusion": "rrf"}):
        with pytest.raises(UsageError):
            of_the_table(table, **options)


def test_sure_shows_sure_hits_only(table: Table) -> None:
    full, _ = of_the_table(table)
    made = replace(fit(samples(), source_of(full.settings)), thresholds={"0.9": full.ranking[1].p})
    answer, _ = of_the_table(table, calibration=made, min_precision=0.9)
    assert 0 < len(answer.hits) < 3 and all(h.p >= full.ranking[1].p for h in answer.hits)
    assert len(answer.ranking) == 40


def test_sure_hits_without_a_second_look_are_refused(table: Table) -> None:
    full, _ = of_the_table(table)
    made = replace(fit(samples(), source_of(full.settings)), thresholds={"0.9": 0.5})
    for scorer, rerank in ((None, True), (BrightnessScorer(), False)):
        retriever = Retriever(table, ColorEncoder(), scorer, shortlist=40, calibration=made, min_precision=0.9)
        with pytest.raises(UsageError, match="needs a second look"):
            retriever.search({"text": "red"}, k=3, rerank=rerank)


def test_a_choice_among_all_cannot_stop_early(table: Table) -> None:
    class Listwise(BrightnessScorer):
        listwise = True

    full, _ = of_the_table(table)
    made = fit(samples(), source_of(full.settings))
    with pytest.raises(UsageError, match="use the budget all"):
        Retriever(table, ColorEncoder(), Listwise(), shortlist=26, calibration=made, budget="auto:0.01")


def test_a_calibration_knows_the_setting_and_not_what_was_counted() -> None:
    class Counting(BrightnessScorer):
        def stats(self) -> dict[str, Any]:
            return {"retrace": {"pairs": len(self.shown)}}

        def settings(self) -> dict[str, Any]:
            return {**super().settings(), "retrace": "causal"}

    scorer = Counting()
    look = MllmReranker("tiny-vl", retrace="causal")
    look._scorers["object"] = scorer  # in place of weights
    found = [look.settings()]
    scorer.shown.append("x")
    found.append(look.settings())
    assert [records[0]["retrace"] for records in found] == [{"setting": "causal", "pairs": n} for n in (0, 1)]
    first, second = (source_of({"second_look": records}) for records in found)
    assert first == second and first["retrace"] == "causal"


class ByPrompt(BrightnessScorer):
    """One scorer for each prompt, which its settings name."""

    prompt = ""

    def with_prompt(self, prompt: str, mode: str | None = None) -> ByPrompt:
        made = ByPrompt()
        made.prompt = prompt
        return made

    def settings(self) -> dict[str, Any]:
        return {"mllm": "any", "prompt": self.prompt}


@pytest.mark.parametrize("tuned", [False, True])
def test_each_query_is_checked_by_its_own_prompt(table: Table, monkeypatch: pytest.MonkeyPatch, tuned: bool) -> None:
    def load(mllm: str, *, prompt: str, **options: Any) -> ByPrompt:
        return ByPrompt().with_prompt(prompt)

    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", load)
    image, rules = Image.new("RGB", (8, 8), (250, 0, 0)), {"shortlist": 4, "fusion": "p-only"}
    made = source_of(Retriever(table, ColorEncoder(), MllmReranker("any"), **rules).search(image).settings)
    own = {"fusion": Tuned(made, "auto", "p-only", {})} if tuned else {"calibration": fit(samples(), made)}
    look = MllmReranker("any")
    asked = Retriever(table, ColorEncoder(), look, **{**rules, **own})
    assert asked.search(image).hits
    with pytest.raises(Mismatch, match=f"prompt '{made['prompt']}', but this run has"):
        asked.search({"text": "red"})
    assert asked.search(image).hits and look.loaded == 2
    later = Retriever(table, ColorEncoder(), look, **{**rules, **own})  # as a server makes one for each request
    assert later.search(image).hits, "what another request needed is no part of this one"


def test_directions_take_away_what_was_not_asked_for(table: Table) -> None:
    answer, _ = of_the_table(table)
    assert answer.manifest["directions"] == {"text-to-both": 1}
    answer, _scorer = of_the_table(table, direction="text-to-image")
    assert answer.manifest["directions"] == {"text-to-image": 1} and answer.hits[0].p > 0.9
    answer, _ = of_the_table(table, direction="text-to-text")
    assert answer.manifest["directions"] == {"text-to-text": 1} and answer.hits[0].p == 0.5
    with pytest.raises(UsageError, match="has no image, which the direction image-to-text requires"):
        of_the_table(table, direction="image-to-text")


def with_words(table: Table, words: str = "red") -> Table:
    """The table with one more item, which has no picture: the nearest of all to red, or "green" the farthest."""
    vector = ColorEncoder().encode([Item("x", text=words)])[0]
    with table.writer():
        table.add([Row("words", "", hashlib.sha256(words.encode()).hexdigest(), 0, 0, words, {}, vector)])
    return table


def test_a_budget_asks_all_of_a_shortlist_the_same(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is one that shows them all, though the first blocks alone would have been asked another."""

    class Prompted(BrightnessScorer):
        def with_prompt(self, prompt: str, mode: str | None = None) -> Prompted:
            return Prompted()

    full, _ = of_the_table(table)
    never = replace(fit(samples(), source_of(full.settings)), gap=(0.0, 5.0))
    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", lambda mllm, *, prompt, **options: Prompted())
    monkeypatch.setattr(Calibration, "check", lambda self, source: None)
    for options in ({"budget": "auto:0.01", "calibration": never, "fusion": "p-only"}, {}):
        look = MllmReranker("any")
        answer = Retriever(with_words(table, "green"), ColorEncoder(), look, shortlist=41, **options).search(
            Image.new("RGB", (8, 8), (250, 0, 0))
        )
        assert list(look._scorers) == ["caption"] and answer.stats.scored == 41


@pytest.mark.parametrize("prompt", ["auto", "object"])
def test_what_has_nothing_of_the_wanted_kind_is_missing_and_refuses_no_query(table: Table, prompt: str) -> None:
    look = MllmReranker("tiny-vl", prompt=prompt, device="cpu", dtype="float32")
    retriever = Retriever(with_words(table), ColorEncoder(), look, shortlist=4, direction="image-to-image")
    answer = retriever.search(Image.new("RGB", (8, 8), (250, 0, 0)), k=4)
    assert [hit.p is None for hit in answer.hits if hit.id == "words"] == [True]
    counts = answer.manifest["candidates"]
    assert counts["scored"] == 3 and counts["reasons"] == {"nothing-to-show": 1}


def test_every_direction_has_a_name_and_others_are_refused() -> None:
    assert len(NAMES) == 9 and all(str(Direction.parse(name)) == name for name in NAMES)
    with pytest.raises(UnknownName):
        Direction.parse("text-to-video")
    both = Item("q", image=Image.new("RGB", (2, 2)), text="red", sha256="0")
    assert Direction("text-to-image").query(both) == Item("q", text="red")
    assert Direction("image-to-text").query(both).text is None
    entry = CandidateRef("c", "file:///c.png", "0", "words")
    assert inferred(both, Direction("both-to-text").candidates([entry])) == "both-to-text"
    assert math.isfinite(Calibration.load(fit(samples(), SOURCE)).survival(2.0))
