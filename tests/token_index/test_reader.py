"""Shortlists with stored tokens: what is read, what is missing, and who decides what happens then."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from token_fakes import NoTokens, ToyScorer, draw, make_table, row_of

from looktwice.errors import MediaError, Mismatch, StoreError, UnknownName, UsageError
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.rerank_run import rerank_run
from looktwice.search.resolve import in_table
from looktwice.search.run_record import RunStats
from looktwice.search.second_stage import SecondStage
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError
from looktwice.store import Table, TokenRow
from looktwice.token_index import POLICIES, TokenLoader, add_tokens, open_set
from looktwice.types import Candidate, Hit, Item

IDS = [f"p{n:03}.png" for n in range(12)]


def entries(table: Table, ids=IDS) -> list[CandidateRef | LoadError]:
    return in_table(table)(ids)


def flat(reader: ImageLoader, wanted) -> list[Item | LoadError]:
    return [found for part in reader.load(wanted) for found in part]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = make_table(tmp_path)
    add_tokens(table, ToyScorer(), "int8")
    return table


def spoil(table: Table, id_: str, **changes) -> None:
    key = open_set(table, ToyScorer().info, "int8").key
    (row,) = table.read_codes([id_], key)
    values = {name: getattr(row, name) for name in TokenRow.__dataclass_fields__}
    table.put_codes([TokenRow(**(values | changes))])


def test_tokens_come_instead_of_pictures_in_the_order_asked_for(table: Table) -> None:
    scorer = ToyScorer()
    reader = TokenLoader(table, scorer)
    order = [IDS[n] for n in np.random.default_rng(0).permutation(12)]
    for path in Path(table.path.parent / "pictures").iterdir():
        path.unlink()  # the picture files are not needed any more
    found = flat(reader, [*entries(table, order), *entries(table, ["text"])])
    assert [item.id for item in found] == [*order, "text"]
    assert all(item.image is None and item.tokens is not None for item in found[:-1])
    assert found[-1].text == "words" and found[-1].tokens is None
    assert reader.counts == {"stored": 12} and scorer.looked == []
    assert reader.settings()["counts"] == {"stored": 12} and reader.settings()["codec"] == "int8"


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_scores_from_codes_are_near_those_from_pictures(
    table: Table, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looktwice.token_index.reader.CHUNK", chunk)
    scorer = ToyScorer()
    (query,) = flat(ImageLoader(), entries(table, IDS[:1]))
    from_files = scorer.score(query, flat(ImageLoader(), entries(table)))
    from_codes = scorer.score(query, flat(TokenLoader(table, scorer), entries(table)))
    np.testing.assert_allclose(from_codes.p, from_files.p, atol=0.01)
    assert not np.array_equal(from_codes.p, from_files.p)


def broken(table: Table) -> dict[str, str]:
    """Make one item of each kind of trouble; returns what is counted for each."""
    table.add([row_of(draw(table.path.parent / "pictures", "fresh.png", 50))])
    spoil(table, IDS[1], sha256="0" * 64)
    spoil(table, IDS[2], codes=b"LT\x01rubbish")
    spoil(table, IDS[3], layout='[{"global":[1,1]}]')
    spoil(table, IDS[4], layout="[[[")
    return {"fresh.png": "no-tokens", IDS[1]: "old-tokens", **dict.fromkeys(IDS[2:5], "damaged-tokens")}


COUNTS = {"stored": 8, "missing": 1, "old": 1, "damaged": 3}


def test_skip_keeps_the_place_and_says_why(table: Table) -> None:
    trouble = broken(table)
    reader = TokenLoader(table, ToyScorer(), policy="skip")
    found = flat(reader, entries(table, [*IDS, "fresh.png"]))
    assert {item.id: item.why.reason for item in found if isinstance(item, LoadError)} == trouble
    assert [item.id for item in found] == [*IDS, "fresh.png"]
    assert reader.counts == {**COUNTS, "skipped": 5}


def test_encode_reads_the_pictures_of_exactly_those(table: Table) -> None:
    trouble = broken(table)
    reader = TokenLoader(table, ToyScorer(), policy="encode")
    found = flat(reader, entries(table, [*IDS, "fresh.png"]))
    assert {item.id for item in found if item.image is not None} == set(trouble)
    assert reader.counts == {**COUNTS, "encoded": 5}


def test_pictures_that_may_have_to_be_read_come_in_small_lists(table: Table) -> None:
    many = entries(table, IDS * 4)
    for policy, sizes in (("encode", [32, 16]), ("skip", [48]), ("error", [48])):
        assert [len(part) for part in TokenLoader(table, ToyScorer(), policy=policy).load(many)] == sizes


def test_error_stops_and_says_what_to_do(table: Table) -> None:
    broken(table)
    reader = TokenLoader(table, ToyScorer())
    with pytest.raises(UsageError, match=r"1 of 1 .*'fresh.png': the table holds no.*add-tokens.*--missing-tokens"):
        flat(reader, entries(table, ["fresh.png"]))
    with pytest.raises(UsageError, match="its visual tokens cannot be decoded"):
        flat(reader, entries(table, IDS[2:3]))


def test_what_is_unreadable_already_and_what_has_its_picture_pass_through(table: Table) -> None:
    item, gone = Item("mine"), LoadError("gone", MediaError("missing"))
    assert flat(TokenLoader(table, ToyScorer()), [item, gone]) == [item, gone]


def test_no_candidates_are_no_candidates(table: Table) -> None:
    assert flat(TokenLoader(table, ToyScorer()), []) == []


def test_the_query_goes_through_the_codec_unless_asymmetric(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    add_tokens(table, scorer, "pool2")
    (query,) = flat(ImageLoader(), entries(table, IDS[:1]))
    (plain,) = scorer.visual_tokens([query])
    symmetric = TokenLoader(table, scorer).query(query)
    assert symmetric.image is query.image and len(symmetric.tokens.features) < len(plain.features)
    reader = TokenLoader(table, scorer)
    shown = reader.query(query)
    assert reader.query(query) is shown, "a budget asks block by block, and the scorer must know the query again"
    (other,) = flat(ImageLoader(), entries(table, IDS[1:2]))
    assert reader.query(other).id == other.id and reader.query(query).tokens is not None
    assert TokenLoader(table, scorer, asymmetric=True).query(query) is query
    text = Item("q", text="words")
    assert TokenLoader(table, scorer).query(text) is text
    assert TokenLoader(table, scorer, asymmetric=True).settings()["asymmetric"] is True


def test_which_set(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    with pytest.raises(UsageError, match=r"holds no visual tokens; run looktwice add-tokens .* or use --codec images"):
        TokenLoader(table, scorer)
    keys = {spec: add_tokens(table, scorer, spec).tokens_key for spec in ("int8", "pq8x4")}
    with pytest.raises(UsageError, match="choose one with --codec: int8, pq8x4"):
        TokenLoader(table, scorer)
    assert TokenLoader(table, scorer, "pq8x4").set.key == keys["pq8x4"]
    with pytest.raises(UnknownName, match=r"Unknown stored codec 'pq16x4'; did you mean pq8x4.*add-tokens"):
        TokenLoader(table, scorer, "pq16x4")
    with pytest.raises(UnknownName, match="policy"):
        TokenLoader(table, scorer, "int8", policy="ignore")
    assert set(POLICIES) == {"error", "encode", "skip"}
    other = ToyScorer(replace(scorer.info, revision="2"))
    with pytest.raises(Mismatch, match=r"tokens of toy \(revision 1, patch8\), not of toy \(revision 2, patch8\)"):
        TokenLoader(table, other, "int8")
    with pytest.raises(Mismatch, match="width 16 with 0 levels, but toy has 16 with 3"):
        TokenLoader(table, scorer.with_levels(3), "pq8x4")


def test_tokens_of_another_model_are_passed_over_with_a_warning(table: Table, caplog) -> None:
    for scorer in (ToyScorer(), NoTokens()):
        CandidateLoader(None, table).for_scorer(scorer)
    assert not caplog.text
    other = ToyScorer(replace(ToyScorer().info, revision="2"))
    assert CandidateLoader(None, table).for_scorer(other).settings() == {"codec": "pictures"}
    assert "reads images instead" in caplog.text and "tokens of toy (revision 1, patch8), not of toy" in caplog.text


def test_a_lost_codebook_is_an_error_that_names_it(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    report = add_tokens(table, scorer, "pq8x4")
    file = table.path / "codebooks" / str(report.codebook_sha256)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\x00\x01")
    with pytest.raises(StoreError, match="damaged"):
        TokenLoader(table, scorer)
    file.unlink()
    with pytest.raises(StoreError, match="lost its codebook"):
        TokenLoader(table, scorer)


def test_tokens_come_in_the_models_own_numbers(table: Table) -> None:
    scorer = ToyScorer()
    scorer.placement = lambda: ("cpu", torch.bfloat16)
    assert flat(TokenLoader(table, scorer), entries(table, IDS[:1]))[0].tokens.features.dtype == torch.bfloat16


@dataclass
class Pairs(ToyScorer):
    """Counts the pairs that it is asked for, and how each candidate was shown."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def score(self, query: Item, candidates):
        self.asked += [(c.id, "pixels" if c.tokens is None else "tokens") for c in candidates]
        return super().score(query, candidates)


def looked(table: Table, cache: Path, ids=IDS, **reading) -> tuple[list[tuple[str, str]], list[float]]:
    scorer, stats = Pairs(), RunStats()
    reranker = MllmReranker(scorer, cache=cache)
    loader = CandidateLoader(None, table, "int8", reading.pop("policy", "encode"), **reading)
    (query,) = flat(ImageLoader(), entries(table, IDS[:1]))
    scores = reranker.score(query, entries(table, ids), loader, stats)
    reranker.close()
    assert stats.cached == len(ids) - len(scorer.asked) and scores is not None
    return scorer.asked, scores.p.tolist()


def test_a_score_from_pixels_is_never_taken_for_one_from_codes(table: Table, tmp_path: Path) -> None:
    fresh = row_of(draw(tmp_path / "pictures", "fresh.png", 50))
    table.add([fresh])
    cache = tmp_path / "s.db"
    before, seen = looked(table, cache, [*IDS, "fresh.png"])
    assert dict(before) == {**dict.fromkeys(IDS, "tokens"), "fresh.png": "pixels"}
    assert looked(table, cache, [*IDS, "fresh.png"]) == ([], seen)
    add_tokens(table, ToyScorer(), "int8")
    after, now = looked(table, cache, [*IDS, "fresh.png"])
    assert after == [("fresh.png", "tokens")] and now[:-1] == seen[:-1] and now[-1] != seen[-1]
    table.delete(["fresh.png"])
    table.add([fresh])  # its tokens are gone, and both scores are known: it was seen as codes, and could be again
    assert looked(table, cache, [*IDS, "fresh.png"])[0] == []


def test_an_uncompressed_query_is_another_query(table: Table, tmp_path: Path) -> None:
    cache = tmp_path / "s.db"
    first, symmetric = looked(table, cache)
    second, asymmetric = looked(table, cache, asymmetric=True)
    assert len(first) == len(second) == 12 and symmetric != asymmetric
    assert looked(table, cache) == ([], symmetric) and looked(table, cache, asymmetric=True) == ([], asymmetric)


def test_what_is_remembered_needs_no_reading(table: Table, tmp_path: Path) -> None:
    _, seen = looked(table, tmp_path / "s.db", policy="error")
    for id_ in IDS:
        spoil(table, id_, codes=b"LT\x01rubbish")
    assert looked(table, tmp_path / "s.db", policy="error") == ([], seen)


def test_a_rerank_says_what_candidates_were_seen_as(table: Table) -> None:
    run = {"q": [(id_, 0.5) for id_ in IDS]}
    loader = CandidateLoader(in_table(table), table, "int8", asymmetric=True)
    (query,) = flat(ImageLoader(), entries(table, IDS[:1]))
    (answer,) = rerank_run(run, [replace(query, id="q")], loader, MllmReranker(ToyScorer()), fusion="p-only")
    (seen,) = answer.manifest["candidates_from"]
    assert seen["asymmetric"] is True and seen["codec"] == "int8" and seen["counts"] == {"stored": 12}


def test_a_reader_that_several_scorers_share_is_named_once(table: Table) -> None:
    loader, scorers = CandidateLoader(None, table, "images"), [ToyScorer(), ToyScorer()]
    assert loader.for_scorer(scorers[0]) is loader.for_scorer(scorers[1])
    assert loader.settings() == [{"codec": "pictures"}]


def ranked(table: Table, budget: str, codec: str = "auto") -> tuple[Pairs, RunStats, list[Hit], list[dict]]:
    scorer, config = Pairs(), RankingConfig.of(fusion="p-only", budget=budget)
    rough, find = config.budget.first_pass, in_table(table)
    first = CandidateLoader(find, table, rough) if rough else None
    full = CandidateLoader(find, table, codec, besides=rough)
    shortlist = [Candidate(id_, 1 - n / 100) for n, id_ in enumerate([*IDS, "text"])]
    stage = SecondStage(MllmReranker(scorer), full, config, 12, first_pass=first)
    (query,) = flat(ImageLoader(), entries(table, IDS[3:4]))
    done = stage.rerank(query, shortlist, 3)
    return scorer, done.stats, done.hits, stage.settings()["candidates_from"]


def test_a_cascade_sees_all_roughly_and_the_best_in_full(table: Table) -> None:
    add_tokens(table, ToyScorer(), "pool4+int8")
    whole, rough = (ranked(table, "all", codec)[2] for codec in ("int8", "pool4+int8"))
    scorer, tally, hits, seen = ranked(table, "cascade:pool4+int8@4")
    assert [record["codec"] for record in seen] == ["pool4+int8", "int8"]
    assert len(scorer.asked) == tally.requested == 12 + 4 and len(hits) == 13
    best = {hit.id for hit in rough[:4]}
    assert {hit.id for hit in hits[:4]} == best
    assert [hit.id for hit in hits[:4]] == [hit.id for hit in whole if hit.id in best], (
        "in the order of the full tokens"
    )
    assert {hit.id: hit.p for hit in hits[:4]} == {hit.id: hit.p for hit in whole if hit.id in best}
    assert [hit.id for hit in hits[4:]] == [hit.id for hit in rough[4:]], "and the others as they were seen roughly"
    assert [hit.rank for hit in hits] == list(range(1, 14))
    assert all(a.score >= b.score for a, b in pairwise(hits)) and hits[3].score - hits[4].score == pytest.approx(1)
    places = {id_: n for n, id_ in enumerate([*IDS, "text"], 1)}
    assert all(hit.explain["coarse_rank"] == places[hit.id] for hit in hits)
    assert [hit.explain.get("look") for hit in hits] == [None] * 4 + ["rough"] * 8 + [None]
    assert hits[0].explain["rough_p"] == next(hit.p for hit in rough if hit.id == hits[0].id)


def test_what_a_cascade_cannot_see_in_full_keeps_its_rough_place(table: Table) -> None:
    add_tokens(table, ToyScorer(), "pool4+int8")
    first = ranked(table, "cascade:pool4+int8@4")[2][0].id
    spoil(table, first, codes=b"LT\x01rubbish")
    config, find = RankingConfig.of(fusion="p-only", budget="cascade:pool4+int8@4"), in_table(table)
    rough, full = CandidateLoader(find, table, "pool4+int8"), CandidateLoader(find, table, "int8", "skip")
    stage = SecondStage(MllmReranker(Pairs()), full, config, 12, first_pass=rough)
    (query,) = flat(ImageLoader(), entries(table, IDS[3:4]))
    hits = stage.rerank(query, [Candidate(id_, 0.5) for id_ in IDS], 3).hits
    assert hits[3].id == first and hits[3].explain["look"] == "rough" and len(hits) == 12


def test_a_cascade_with_one_codec_goes_on_to_the_pictures(table: Table) -> None:
    scorer, _, hits, seen = ranked(table, "cascade:int8@2")
    assert [record["codec"] for record in seen] == ["int8", "pictures"]
    assert [how for _, how in scorer.asked] == ["tokens"] * 12 + ["pixels"] * 2
    assert hits[0].id == IDS[3] and hits[0].p is not None and hits[0].p > 0.99


@pytest.mark.parametrize("text", ["cascade", "cascade:", "cascade:int8@0", "cascade:int8@x", "cascade:@3"])
def test_what_is_no_cascade_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        RankingConfig.of(budget=text)
