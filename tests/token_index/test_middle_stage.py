"""The middle look in a search: what it orders, what it leaves in place, what it says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from token_fakes import ToyScorer, draw, make_table, row_of

from looktwice.codecs import layout_from_json
from looktwice.errors import Mismatch, UsageError
from looktwice.evaluate import Interval
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System, reranked
from looktwice.late_interaction import agreed, unit_rows
from looktwice.rank import Fusion, fuse
from looktwice.report.match_drawing import match_svg
from looktwice.score import Scorer
from looktwice.search.examples import Examples
from looktwice.search.match_map import matches_of
from looktwice.search.middle_stage import MiddleStage, in_place, second_depth
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.probe import keep, probe
from looktwice.search.retriever import Retriever
from looktwice.store import Table
from looktwice.store.group import TableGroup
from looktwice.store.tokens import TokenRow
from looktwice.token_index import add_tokens
from looktwice.token_index.matcher import TokenMatcher
from looktwice.token_index.matching import best_matches, grids
from looktwice.types import Candidate, EncoderInfo, Item, VisualTokens


class ToyEncoder:
    """The encoder of `make_table`: four pixels."""

    info = EncoderInfo("toy", "1", "none", 8)

    def encode(self, items: Sequence[Item]) -> Any:
        def pixels(image: Any) -> Any:
            return np.asarray(image.convert("RGB").resize((2, 2)), np.float32).ravel()[:8] + 1

        rows = [np.ones(8) if item.image is None else pixels(item.image) for item in items]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


class Broken(ToyScorer):
    """A tower that gives NaN."""

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        return [replace(tokens, features=tokens.features * torch.nan) for tokens in super().visual_tokens(items)]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = make_table(tmp_path)
    add_tokens(made, ToyScorer(), "int8")
    return made


def retriever(table: Table, scorer: Scorer | None = None, **how: Any) -> Retriever:
    return Retriever(table, ToyEncoder(), scorer or ToyScorer(), **{"maxsim": 12, "shortlist": 4, **how})


def image_of(table: Table, name: str) -> Item:
    return Item(f"like {name}", image=Image.open(Path(str(table.path)).parent / "pictures" / name).convert("RGB"))


def test_an_image_is_most_like_itself_and_what_follows_is_in_order(table: Table) -> None:
    answer = retriever(table).search(image_of(table, "p003.png"), k=12)
    scores = [hit.maxsim for hit in answer.ranking if hit.maxsim is not None]
    assert answer.ranking[0].id == "p003.png" and answer.ranking[0].maxsim == pytest.approx(1, abs=0.01)
    assert [hit.scored for hit in answer.ranking] == [True] * 4 + [False] * 8
    tail = [hit.maxsim for hit in answer.ranking[4:]]
    assert tail == sorted(tail, key=lambda x: -(x or 0)) and len(scores) == 12
    assert max(x for x in tail if x) <= min(hit.maxsim for hit in answer.ranking[:4] if hit.maxsim)
    assert [hit.score for hit in answer.ranking] == sorted((h.score for h in answer.ranking), reverse=True)
    (how,) = answer.manifest["middle_look"]
    assert (how["depth"], how["codec"], how["rarity"]["images"], how["rarity"]["stored"]) == (12, "int8", 12, True)
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 12} and answer.manifest["maxsim"] == 12
    assert answer.manifest["fusion"] == "coarse=0,maxsim=0.75,odds=0.25" and answer.stats.seconds["maxsim"] > 0


def test_without_it_nothing_is_said_of_it(table: Table) -> None:
    answer = retriever(table, maxsim=0).search(image_of(table, "p003.png"))
    assert not {"maxsim", "middle_look"} & answer.manifest.keys()
    assert "middle_look" not in answer.manifest["candidates"] and answer.manifest["fusion"] == "0.5"
    assert all(hit.maxsim is None and "maxsim_rank" not in (hit.explain or {}) for hit in answer.ranking)


def test_the_three_weights_are_those_of_the_name(table: Table) -> None:
    answer = retriever(table, fusion="coarse=0.2,maxsim=0.3,p=0.5").search(image_of(table, "p005.png"), k=4)
    for hit in answer.hits:
        assert hit.maxsim is not None and hit.p is not None and hit.explain is not None
        assert hit.score == pytest.approx(0.2 * hit.coarse + 0.3 * hit.maxsim + 0.5 * hit.p, abs=1e-6)
        parts = [hit.explain[f"from_{part}"] for part in ("coarse", "maxsim", "p")]
        assert sum(parts) == pytest.approx(hit.score, abs=1e-6)


def test_the_second_look_sees_only_what_was_compared(table: Table) -> None:
    answer = retriever(table, maxsim=5, shortlist=8).search(image_of(table, "p005.png"), k=12)
    assert [hit.scored for hit in answer.ranking] == [True] * 5 + [False] * 7
    assert [hit.maxsim is None for hit in answer.ranking] == [False] * 5 + [True] * 7
    assert answer.stats.requested == 5 and len(StoredAnswer.of(answer, 8).p) == 5
    assert second_depth([Candidate("a", 0.5), Candidate("b", 0.4)], 8) == 8, "a text's middle look does not run"


def test_an_earlier_run_is_fused_as_a_search_of_today(table: Table) -> None:
    answer = retriever(table, maxsim=5, shortlist=5).search(image_of(table, "p005.png"), k=12)
    stored = StoredAnswer.of(answer, 5)
    earlier = replace(stored, p=(*stored.p, 0.99, 0.98), entropy=(*stored.entropy, None, None))
    system = System("second look", Fusion.parse(answer.manifest["fusion"]), 7)
    assert [hit.id for hit in reranked(earlier, system)] == [hit.id for hit in reranked(stored, system)]


def test_parts_of_a_candidate_without_tokens_add_up(table: Table, tmp_path: Path) -> None:
    table.add([row_of(draw(tmp_path, "late.png", 99))])
    how = {"fusion": "coarse=0.2,maxsim=0.3,p=0.5", "maxsim": 13, "shortlist": 13, "missing_tokens": "encode"}
    answer = retriever(table, **how).search(image_of(table, "p001.png"), k=13)
    (late,) = [hit for hit in answer.hits if hit.id == "late.png"]
    parts = [(late.explain or {})[f"from_{part}"] for part in ("coarse", "maxsim", "p")]
    assert late.maxsim is None and sum(parts) == pytest.approx(late.score, abs=1e-6)


def test_it_runs_alone_without_a_second_look(table: Table) -> None:
    answer = retriever(table).search(image_of(table, "p007.png"), k=3, rerank=False)
    assert answer.hits[0].id == "p007.png" and answer.hits[0].score == answer.hits[0].maxsim
    assert answer.manifest["second_look"] is None and answer.manifest["middle_look"]


def test_a_text_is_skipped_and_said(table: Table) -> None:
    answer = retriever(table).search(Item("words", text="a thing"), k=3, rerank=False)
    assert answer.manifest["candidates"]["middle_look"] == {"skipped: no-image": 1}
    assert [hit.id for hit in answer.ranking] == [c.id for c in answer.shortlist]
    assert answer.manifest["middle_look"] == []


def test_candidates_without_tokens_keep_their_coarse_place(table: Table, tmp_path: Path) -> None:
    table.add([row_of(draw(tmp_path, "late.png", 99))])
    query = image_of(table, "p001.png")
    answer = retriever(table, maxsim=13).search(query, k=13, rerank=False)
    place = [c.id for c in answer.shortlist].index("late.png")
    assert answer.ranking[place].id == "late.png" and answer.ranking[place].maxsim is None
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 12, "missing": 1}


def test_damaged_codes_are_counted_and_others_still_match(table: Table) -> None:
    key = table.manifest.tokens[0]["tokens_key"]
    (row,) = table.read_codes(["p002.png"], key)
    assert row is not None
    table.put_codes([TokenRow(row.id, row.sha256, key, row.layout, row.codes[:-3], row.levels)])
    answer = retriever(table).search(image_of(table, "p002.png"), k=12, rerank=False)
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 11, "damaged": 1}


def test_all_common_tokens_fall_back_to_the_coarse_order(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.token_index.matcher.weights_of", lambda *_: None)
    answer = retriever(table).search(image_of(table, "p002.png"), k=12, rerank=False)
    assert answer.manifest["candidates"]["middle_look"] == {"skipped: common-tokens": 1}
    assert [hit.id for hit in answer.ranking] == [c.id for c in answer.shortlist]


def test_tokens_that_are_not_finite_are_said(table: Table) -> None:
    answer = retriever(table, Broken()).search(image_of(table, "p002.png"), k=12, rerank=False)
    assert answer.manifest["candidates"]["middle_look"] == {"skipped: non-finite": 1}


def test_missing_and_stale_samples_are_drawn_for_the_run_and_said(
    table: Table, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = dict(table.manifest.tokens[0])
    stored = TokenMatcher(table, ToyScorer()).rarity
    table.note_tokens({name: value for name, value in entry.items() if name != "rarity"})
    with caplog.at_level(logging.WARNING):
        drawn = TokenMatcher(table, ToyScorer()).rarity
    assert "missing" in caplog.text and not drawn.stored and drawn.about["sha256"] == stored.about["sha256"]
    table.note_tokens(entry)
    table.add([row_of(draw(tmp_path, f"more{n}.png", 100 + n)) for n in range(6)])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert not TokenMatcher(table, ToyScorer()).rarity.stored
    assert "older" in caplog.text
    add_tokens(table, ToyScorer(), "int8")
    fresh = TokenMatcher(table, ToyScorer()).rarity
    assert fresh.stored and fresh.about["images"] == 18
    (table.location.path / Path("codebooks") / fresh.about["sha256"]).write_bytes(b"other")  # type: ignore[operator]
    assert "damaged" not in caplog.text and not TokenMatcher(table, ToyScorer()).rarity.stored
    assert "damaged" in caplog.text


def test_what_cannot_be_is_refused(table: Table, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"add maxsim"):
        retriever(table, maxsim=0, fusion="coarse=0.5,maxsim=0.5")
    with pytest.raises(UsageError, match="at least 1"):
        retriever(table, maxsim=-1)
    bare = make_table(tmp_path / "bare")
    with pytest.raises(UsageError, match="store some with: looktwice add-tokens"):
        retriever(bare)
    other = ToyScorer(replace(ToyScorer().info, revision="2"))
    with pytest.raises(Mismatch, match="revision 2"):
        retriever(table, other).search(image_of(table, "p002.png"))
    with pytest.raises(UsageError, match="add up to 1"):
        Fusion.parse("coarse=0.5,maxsim=0.3,p=0.3")


@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.booleans()), min_size=1, max_size=12))
def test_in_place_keeps_places_and_fuse_agrees(rows: list[tuple[float, bool]]) -> None:
    shortlist = [Candidate(f"c{n:02}", 1 - n / 20) for n in range(len(rows))]
    scores = {c.id: value for c, (value, known) in zip(shortlist, rows, strict=True) if known}
    if not scores:
        return
    placed = in_place(shortlist, scores)
    assert sorted(c.id for c in placed) == [c.id for c in shortlist]
    for n, candidate in enumerate(shortlist):
        if candidate.id not in scores:
            assert placed[n].id == candidate.id and placed[n].estimated
    values = [c.maxsim for c in placed if c.id in scores]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    hits = fuse(placed, None)
    assert [hit.id for hit in hits if hit.maxsim is not None] == [c.id for c in placed if c.id in scores]
    if len(set(values)) == len(values):
        assert [hit.id for hit in hits] == [c.id for c in placed]


def test_the_stage_of_a_table_is_asked_by_name(table: Table) -> None:
    stage = MiddleStage(MllmReranker(ToyScorer()), table, 12, "pq4")
    with pytest.raises(UsageError, match="pq4"):
        stage.look(image_of(table, "p001.png"), [Candidate("p001.png", 0.5)])


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_several_examples_are_joined_by_their_rule(table: Table, rule: str) -> None:
    alone = [retriever(table).search(image_of(table, f"p00{n}.png"), k=12, rerank=False).ranking for n in (1, 2)]
    query = Examples.of([image_of(table, "p001.png"), image_of(table, "p002.png")], [], "both", rule)
    answer = retriever(table).search(query, k=12, rerank=False)
    first, second = ({hit.id: hit.maxsim or 0.0 for hit in hits} for hits in alone)
    join: Any = max if rule == "max" else lambda a, b: (a + b) / 2
    for hit in answer.ranking:
        assert hit.maxsim == pytest.approx(join(first[hit.id], second[hit.id]), abs=1e-6)
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 12}


@pytest.mark.parametrize(
    "codec",
    [
        "none",
        "int8",
        "pq4x4",
        "opq4x4",
        "pool2+int8",
        "sample2:replicate+int8",
        "group4+int8",
        "cluster5+none",
        "late8+opq4x4",
        "pool2+late8+pq2x4",
    ],
)
@pytest.mark.parametrize("levels", [0, 2])
def test_scores_from_codes_are_those_of_decoded_tokens(tmp_path: Path, codec: str, levels: int) -> None:
    table, scorer = make_table(tmp_path), ToyScorer().with_levels(levels)
    add_tokens(table, scorer, codec, train_tokens=300)
    matcher = TokenMatcher(table, scorer)
    query = matcher.query(image_of(table, "p001.png"))
    ids = [f"p{n:03}.png" for n in (1, 4, 7)]
    found, kept = matcher.scores(query, ids).scores, matcher.set.codec
    assert query.weights is not None
    for row in table.read_codes(ids, matcher.set.key):
        assert row is not None
        tokens = kept.decode(row.codes, layout_from_json(row.layout))
        rows = (
            unit_rows(tokens.features) if kept.codebook is None else kept.codebook.rotate(unit_rows(tokens.features), 0)
        )
        voted = agreed((rows @ query.rows.T)[None], grids(tokens.layout), query.grids)
        assert found[row.id] == pytest.approx(float(voted[0].amax(0) @ query.weights), abs=1e-5)


def test_a_probe_says_what_agrees_and_a_search_follows_it(table: Table) -> None:
    found = probe(table, MllmReranker(ToyScorer()), queries=6, depth=10, encoder=ToyEncoder())
    assert (found.queries, [row.order for row in found.rows]) == (6, ["first look", "middle look"])
    assert found.gain.mean == pytest.approx(found.rows[1].tau - found.rows[0].tau)
    assert retriever(table, maxsim=None).config.maxsim == 0, "not probed"
    for low, expected in ((0.1, 500), (-0.1, 0)):
        keep(table, replace(found, gain=Interval(0.2, low, 0.3)), 500)
        assert retriever(table, maxsim=None).config.maxsim == expected
        assert Retriever(table, ToyEncoder()).config.maxsim == 0, "nothing loads a model unasked"


class Same(ToyScorer):
    """Answers the same for every pair."""

    def score(self, query: Item, candidates: Sequence[Item]) -> Any:
        scores = super().score(query, candidates)
        return replace(scores, p=np.full_like(scores.p, 0.5))


def test_a_probe_without_an_order_to_agree_with_is_refused(table: Table) -> None:
    with pytest.raises(UsageError, match="too few images"):
        probe(table, MllmReranker(Same()), queries=4, depth=10, encoder=ToyEncoder())


def test_a_map_says_where_each_token_was_found(table: Table) -> None:
    stage = retriever(table).middle
    assert stage is not None
    query = image_of(table, "p004.png")
    found = matches_of(stage, query, ["p004.png", "p005.png", "text"])
    assert set(found) == {"p004.png", "p005.png"} and all(len(rows) == 6 for rows in found.values())
    assert all(match.query == match.image and match.cosine > 0.9 for match in found["p004.png"])
    shares = [match.weight * match.cosine for match in found["p005.png"]]
    assert shares == sorted(shares, reverse=True)
    assert matches_of(stage, Item("words", text="a thing"), ["p004.png"]) == {}
    svg = match_svg("data:image/png;base64,AA==", 'data:"<', found["p005.png"], "p005 & <b>")
    assert ElementTree.fromstring(svg).tag.endswith("svg") and svg.count("<rect") == 12


def test_several_tables_are_matched_as_one(table: Table, tmp_path: Path) -> None:
    other = make_table(tmp_path / "other", 5)
    add_tokens(other, ToyScorer(), "int8")
    group = TableGroup([table, other])
    answer = Retriever(group, ToyEncoder(), ToyScorer(), maxsim=17, shortlist=4).search(
        image_of(table, "p004.png"), k=17, rerank=False, where="width > 0"
    )
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 17}
    assert answer.hits[0].id.endswith("p004.png") and answer.hits[0].maxsim == pytest.approx(1, abs=0.01)


def test_crops_are_a_token_set_of_their_own(table: Table) -> None:
    before = dict(table.manifest.tokens[0])
    report = add_tokens(table, ToyScorer(), "int8", crops=True)
    assert report.encoded == 12 and dict(table.manifest.tokens[0]) == before
    stage = retriever(table).middle
    assert stage is not None
    query = image_of(table, "p003.png")
    answer = retriever(table).search(query, k=12)
    (how,) = answer.manifest["middle_look"]
    assert how["views"] == 5 and answer.hits[0].id == "p003.png"
    assert [source.get("tokens_key") for source in answer.manifest["candidates_from"]] == [before["tokens_key"]]
    matches = matches_of(stage, query, ["p003.png"])["p003.png"]
    assert all(0 <= edge <= 1 for match in matches for edge in match.image)


def test_a_corner_that_is_the_whole_query_is_found_in_its_crop(table: Table, tmp_path: Path) -> None:
    """A query that is the corner of an image matches that image's crop exactly."""
    add_tokens(table, ToyScorer(), "int8", crops=True)
    whole = image_of(table, "p006.png").image
    assert whole is not None
    width, height = (round(0.6 * side) for side in whole.size)
    query = Item("corner", image=whole.crop((0, 0, width, height)))
    hit = retriever(table).search(query, k=12, rerank=False).hits[0]
    assert hit.id == "p006.png" and hit.maxsim == pytest.approx(1, abs=0.01)


def test_a_purge_leaves_no_codes_of_deleted_rows_in_a_sample(table: Table) -> None:
    folder = Path(str(table.path)) / "codebooks"
    assert len(list(folder.iterdir())) == 1
    table.delete(["p001.png"])
    table.compact(purge=True)
    assert list(folder.iterdir()) == [] and "rarity" not in table.manifest.tokens[0]
    add_tokens(table, ToyScorer(), "int8")
    assert TokenMatcher(table, ToyScorer()).rarity.about["images"] == 11
    table.add([row_of(Path(str(table.path)).parent / "pictures" / "p001.png", f"again{n}") for n in range(9)])
    add_tokens(table, ToyScorer(), "int8")
    assert len(list(folder.iterdir())) == 1, "the old sample is gone"


def test_late_codes_serve_the_middle_look_only(table: Table, tmp_path: Path) -> None:
    add_tokens(table, ToyScorer(), "late8+opq4x4", train_tokens=300)
    answer = retriever(table).search(image_of(table, "p003.png"), k=3)
    assert answer.manifest["middle_look"][0]["codec"] == "late8+opq4x4", "they come first"
    assert answer.manifest["candidates_from"][0]["codec"] == "int8"
    alone = make_table(tmp_path / "alone")
    add_tokens(alone, ToyScorer(), "late8+opq4x4", train_tokens=300)
    answer = retriever(alone).search(image_of(alone, "p003.png"), k=3)
    assert answer.hits[0].id == "p003.png" and answer.manifest["candidates_from"] == [{"codec": "pictures"}]


def test_neighbours_vote_only_for_the_best_of_many(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = TokenMatcher(table, ToyScorer())
    query, ids = matcher.query(image_of(table, "p003.png")), [f"p{n:03}.png" for n in range(12)]
    everyone = matcher.scores(query, ids).scores
    found = [one for one in matcher._records(ids)[0].values() if not isinstance(one, str)]
    assert query.weights is not None
    plain = dict(
        zip(
            ids,
            (best_matches(matcher.set.codec, query, found, strength=0).amax(1) @ query.weights).tolist(),
            strict=True,
        )
    )
    monkeypatch.setattr("looktwice.token_index.matching.VOTED", 5)
    some = matcher.scores(query, ids).scores
    order, rough = (sorted(ids, key=lambda id_: -scores[id_]) for scores in (some, plain))
    assert len(some) == 12 and order[5:] == rough[5:] and set(order[:5]) == set(rough[:5])
    assert {id_: some[id_] for id_ in order[:5]} == pytest.approx({id_: everyone[id_] for id_ in order[:5]})
    assert order[0] == "p003.png"


def test_without_a_middle_look_the_first_one_gets_its_weight_in_the_explanation() -> None:
    fusion = Fusion.parse("coarse=0,maxsim=0.75,odds=0.25")
    assert fusion.parts(0.4, None, 0.5) == {"from_coarse": 0.75 * 0.4, "from_p": 0.25 * 0.5}
    assert fusion.parts(0.4, 0.8, 0.5)["from_maxsim"] == pytest.approx(0.75 * 0.8)
