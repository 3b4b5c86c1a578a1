"""Retriever and rerank_run on stand-ins whose answers can be worked out on paper."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from looktwice.encode import load_encoder
from looktwice.errors import Mismatch, ModelError, UnknownName, UsageError
from looktwice.indexing import index
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.rerank_run import rerank_run
from looktwice.search.resolve import in_folder, in_table
from looktwice.search.retriever import Retriever
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources import Source, images, loader, scan
from looktwice.store import Row, Table
from looktwice.testing import BrightnessScorer, ColorEncoder, make_images
from looktwice.types import EncoderInfo, Item, PairScores


@pytest.fixture
def table(tmp_path: Path, pictures: Path, colours: ColorEncoder) -> Table:
    made = Table.create(tmp_path / "t.lt", colours.info, columns={"shade": int})
    rows = []
    for source in scan([pictures]):
        assert isinstance(source, Source)
        data = source.read()
        image, (width, height) = images.load(data)
        vector = colours.encode([Item(source.id, image)])[0]
        shade = {"shade": int(source.id[-5])}
        rows.append(Row(source.id, source.uri, hashlib.sha256(data).hexdigest(), width, height, None, shade, vector))
    made.add(rows)
    return made


def flat(*colour: int) -> Image.Image:
    return Image.new("RGB", (4, 4), colour)


def test_first_look_orders_by_cosine_then_id(table: Table, colours: ColorEncoder) -> None:
    answer = Retriever(table, colours).search(flat(200, 0, 0), k=3)
    assert [hit.id for hit in answer.hits] == ["red-0.png", "red-1.png", "red-2.png"]
    assert all(hit.p is None and not hit.scored for hit in answer.ranking)
    assert answer.manifest["second_look"] is None


def test_second_look_reorders_and_is_counted(table: Table, colours: ColorEncoder) -> None:
    scorer = BrightnessScorer()
    answer = Retriever(table, colours, scorer, fusion="p-only", shortlist=12).search("a blue thing", k=4)
    # the brightest four have the same p; the coarse score decides: blue itself, then grey, which is a third blue
    assert [hit.id for hit in answer.hits] == ["blue-0.png", "grey-0.png", "green-0.png", "red-0.png"]
    assert len(scorer.shown) == 12
    counts = answer.manifest["candidates"]
    assert (counts["requested"], counts["scored"], counts["missing"], counts["failed"]) == (12, 12, 0, 0)


def test_tail_that_was_not_looked_at_stays_below(table: Table, colours: ColorEncoder) -> None:
    answer = Retriever(table, colours, BrightnessScorer(), shortlist=3).search("red", k=12)
    assert len(answer.ranking) == 12
    assert [hit.scored for hit in answer.ranking] == [True] * 3 + [False] * 9
    assert [hit.score for hit in answer.ranking] == sorted((h.score for h in answer.ranking), reverse=True)


def test_weights_are_those_of_the_paper(table: Table, colours: ColorEncoder) -> None:
    answer = Retriever(table, colours, BrightnessScorer(), fusion="0.5", shortlist=12).search("red", k=12)
    for hit in answer.ranking:
        assert hit.p is not None
        assert hit.score == pytest.approx(0.5 * hit.coarse + 0.5 * hit.p, abs=1e-6)


def test_missing_candidates_keep_their_places_and_failed_ones_stand_below(
    table: Table, colours: ColorEncoder, pictures: Path
) -> None:
    (pictures / "red-0.png").unlink()
    flat(1, 2, 3).save(pictures / "red-1.png")
    answer = Retriever(table, colours, BrightnessScorer(broken_below=0.3), shortlist=12).search("red", k=12)
    by_id = {hit.id: hit for hit in answer.ranking}
    assert by_id["red-0.png"].p is None and by_id["red-1.png"].p is None and by_id["red-2.png"].p is None
    gone = {hit.id: hit.rank for hit in answer.ranking if hit.status == "missing"}
    first = {candidate.id: rank for rank, candidate in enumerate(answer.shortlist, 1)}
    assert gone == {name: first[name] for name in ("red-0.png", "red-1.png")}
    rest = [hit.scored for hit in answer.ranking if hit.id not in gone]
    assert rest == [True] * 6 + [False] * 4
    counts = answer.manifest["candidates"]
    assert counts["missing"] == 2 and counts["reasons"] == {"missing": 1, "changed": 1}
    assert counts["failed"] == 4 and counts["scored"] == 6 and counts["requested"] == 12


def test_filter_and_no_rerank(table: Table, colours: ColorEncoder) -> None:
    scorer = BrightnessScorer()
    answer = Retriever(table, colours, scorer).search("green", k=10, where="shade = 1", rerank=False)
    assert {hit.id for hit in answer.hits} == {f"{c}-1.png" for c in ("red", "green", "blue", "grey")}
    assert scorer.shown == []


def test_empty_table_gives_no_hits(tmp_path: Path, colours: ColorEncoder) -> None:
    empty = Table.create(tmp_path / "e.lt", colours.info)
    answer = Retriever(empty, colours, BrightnessScorer()).search("red")
    assert answer.hits == [] and answer.manifest["items"] == 0


def test_many_queries_are_answered_in_order_whatever_the_batch(table: Table, colours: ColorEncoder) -> None:
    retriever = Retriever(table, colours, BrightnessScorer(), shortlist=5)
    names = ["red", "green", "blue", "grey"] * 10  # more than one batch
    many = [a.ranking for a in retriever.search_many(Item(str(i), text=name) for i, name in enumerate(names))]
    for name, ranking in zip(names[:4], many[:4], strict=True):
        alone = retriever.search(name).ranking
        assert [(h.id, h.rank) for h in alone] == [(h.id, h.rank) for h in ranking]
    assert many[:4] == many[36:]


def test_an_answer_does_not_depend_on_the_queries_beside_it(table: Table, colours: ColorEncoder) -> None:
    class Rounding(ColorEncoder):
        """Vectors that move with the batch, as in half precision."""

        def encode(self, items: Sequence[Item]) -> np.ndarray:
            rows = super().encode(items) + 1e-3 * len(items)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    retriever = Retriever(table, Rounding())
    together = [answer.ranking for answer in retriever.search_many(["red", "green", flat(9, 90, 200)])]
    assert [retriever.search(query).ranking for query in ["red", "green", flat(9, 90, 200)]] == together


def test_a_table_knows_what_its_vectors_were_computed_in(tmp_path: Path, pictures: Path, cpu_dtype: str) -> None:
    encoder = load_encoder("tiny-clip", device="cpu")
    assert encoder.info.dtype == cpu_dtype
    table = Table.create(tmp_path / "real.lt", encoder.info)
    index(table, scan([pictures]), encoder)
    assert table.manifest.dtypes == (cpu_dtype,) and Table.open(table.path).info()["dtypes"] == [cpu_dtype]
    assert Retriever(table, device="cpu").search("horse").manifest["encoder_dtype"] == cpu_dtype
    index(table, [], load_encoder("tiny-clip", device="cpu", dtype="float16"))
    assert Table.open(table.path).manifest.dtypes == (cpu_dtype, "float16")


def test_one_bad_query_answers_for_itself(table: Table, colours: ColorEncoder) -> None:
    bad = ["missing.jpg", "nothing that this encoder knows", "", 42]
    answers = list(Retriever(table, colours, BrightnessScorer()).search_many(["red", *bad, flat(0, 0, 200)], k=2))
    assert [answer.query.id for answer in answers] == ["1", "2", "3", "4", "5", "6"]
    assert [len(answer.hits) for answer in answers] == [2, 0, 0, 0, 0, 2]
    assert [type(answer.error).__name__ for answer in answers] == ["NoneType", *["QueryError"] * 4, "NoneType"]
    assert answers[0].ranking == Retriever(table, colours, BrightnessScorer()).search("red", k=2).ranking
    assert "zero or non-finite" in str(answers[2].error) and answers[2].manifest["candidates"]["scored"] == 0


@pytest.mark.parametrize(
    ("query", "settings", "message"),
    [
        ("red", {"k": 0}, "k must be at least 1"),
        ("nothing that this encoder knows", {}, "zero or non-finite vector"),
        ("", {}, "must be a non-empty str"),
        ("missing.jpg", {}, "missing.jpg"),
        (42, {}, "found int"),
        ({"image": None}, {}, "needs"),
        ({"picture": "x"}, {}, "picture"),
        ("red", {"where": "no_such_column = 1"}, "no_such_column"),
    ],
)
def test_what_is_refused(table: Table, colours: ColorEncoder, query: object, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Retriever(table, colours, BrightnessScorer()).search(query, **settings)


def test_broken_query_picture_is_named_with_its_reason(table: Table, colours: ColorEncoder, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes((tmp_path / "pictures" / "red-0.png").read_bytes()[:40])
    with pytest.raises(UsageError, match=r"broken\.png.*(truncated|corrupt)"):
        Retriever(table, colours).search(tmp_path / "broken.png")


def test_another_encoder_is_refused_with_both_names(table: Table) -> None:
    other = ColorEncoder()
    other.info = EncoderInfo("shapes", "2", "mean", 8)
    with pytest.raises(Mismatch, match=r"colors.*shapes"):
        Retriever(table, other)


@pytest.mark.parametrize("shortlist", [0, -1])
def test_shortlist_must_hold_something(table: Table, colours: ColorEncoder, shortlist: int) -> None:
    with pytest.raises(UsageError, match="shortlist"):
        Retriever(table, colours, shortlist=shortlist)


def test_unknown_prompt_fails_before_anything_is_loaded() -> None:
    with pytest.raises(UnknownName, match="did you mean object"):
        MllmReranker("no-such-model", prompt="objekt")


# --- somebody else's shortlist ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["table", "folder"])
def test_rerank_of_a_foreign_run(table: Table, pictures: Path, where: str) -> None:
    loader = CandidateLoader(in_table(table) if where == "table" else in_folder(pictures))
    run = {"q": [("red-2.png", 0.9), ("red-0.png", 0.8), ("nowhere.png", 0.7), ("grey-1.png", 0.1)], "other": []}
    queries = [Item("q", text="red"), Item("z", text="z")]
    (answer,) = rerank_run(run, queries, loader, MllmReranker(BrightnessScorer()), shortlist=3)
    assert [hit.id for hit in answer.ranking] == ["red-0.png", "red-2.png", "nowhere.png", "grey-1.png"]
    assert [hit.scored for hit in answer.ranking] == [True, True, False, False]
    assert answer.manifest["candidates"]["reasons"] == {"unknown-id": 1}
    (first,) = rerank_run(
        {"q": [("nowhere.png", 0.95), *run["q"][:2]]}, queries, loader, MllmReranker(BrightnessScorer())
    )
    assert [hit.id for hit in first.ranking] == ["red-0.png", "red-2.png", "nowhere.png"], "no place to keep"
    assert first.ranking[-1].status == "failed" and first.ranking[-1].p is None
    assert answer.manifest["candidates_from"] == [{"codec": "pictures"}]


def test_scores_that_are_no_cosines_are_not_weighed_against_probabilities(pictures: Path) -> None:
    run = {"q": [("red-0.png", 17.2), ("red-1.png", 3.0)]}
    queries, reranker = [Item("q", text="red")], MllmReranker(BrightnessScorer())
    loader = CandidateLoader(in_folder(pictures))
    with pytest.raises(UsageError, match=r"3 to 17\.2.*rrf"):
        list(rerank_run(run, queries, loader, reranker))
    (answer,) = rerank_run(run, queries, loader, reranker, fusion="rrf")
    assert answer.hits[0].id == "red-0.png"


def test_queries_of_every_kind_are_called_by_number(table: Table, colours: ColorEncoder) -> None:
    answers = list(
        Retriever(table, colours, fusion=0.5).search_many(["red", flat(0, 0, 200), Item("mine", text="red")])
    )
    assert [answer.query.id for answer in answers] == ["1", "2", "mine"]
    assert [answer.hits[0].id for answer in answers] == ["red-0.png", "blue-0.png", "red-0.png"]


def test_large_pictures_are_shown_a_few_at_a_time(
    table: Table, colours: ColorEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader.ImageLoader, "chunk_pixels", 2 * 16)  # two of 4 × 4
    sizes: list[int] = []

    class Counting(BrightnessScorer):
        def score(self, query: Item, shown: Sequence[Item]) -> PairScores:
            sizes.append(len(shown))
            return super().score(query, shown)

    whole = Retriever(table, colours, BrightnessScorer(), shortlist=12).search("red", k=12)
    monkeypatch.setattr(colours, "encode", counted := Encoded(colours))
    few = Retriever(table, colours, Counting(), shortlist=12)
    answers = list(few.search_many(["red", flat(200, 0, 0), flat(0, 200, 0), flat(0, 0, 200)], k=12))
    assert answers[0].ranking == whole.ranking
    assert max(sizes) <= 2 and sum(sizes) == 4 * 12
    assert counted.sizes == [1, 1, 1, 1]


class Encoded:
    """An encoder's `encode`, and how many it was given each time."""

    def __init__(self, encoder: ColorEncoder) -> None:
        self.inner, self.sizes = encoder.encode, list[int]()

    def __call__(self, items: Sequence[Item]) -> np.ndarray:
        self.sizes.append(len(items))
        return self.inner(items)


@pytest.mark.parametrize(
    ("given", "message"), [([0.5], "1 scores for 4 pairs"), ([0.5, 5.0, 0.5, 0.5], "outside 0 and 1")]
)
def test_what_a_scorer_gives_is_checked(table: Table, colours: ColorEncoder, given: list[float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Retriever(table, colours, Fixed(given), shortlist=4).search("red")


def test_an_ok_without_a_number_is_not_counted_as_scored(table: Table, colours: ColorEncoder) -> None:
    answer = Retriever(table, colours, Fixed([0.5, float("nan"), 0.5, 0.5]), shortlist=4).search("red", k=4)
    assert (answer.stats.scored, answer.stats.status["failed"]) == (3, 1)


class Fixed:
    """Gives the same p whatever it is shown."""

    def __init__(self, p: list[float]) -> None:
        self.p = np.array(p, np.float32)

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        n = len(self.p)
        zero = np.zeros(n, np.float32)
        return PairScores(self.p, np.zeros((n, 2), np.float32), zero, zero, np.zeros(n, np.int64), ("ok",) * n)

    def describe(self) -> dict[str, object]:
        return {"mllm": "fixed"}


def test_chunks_do_not_shift_rows(tmp_path: Path) -> None:
    """More candidates than are read at once, some of them unreadable: every p belongs to its id."""
    folder = make_images(tmp_path / "many")
    for i in range(70):
        flat(3 * i, 0, 0).save(folder / f"x{i:02}.png")
    (folder / "x33.png").write_bytes(b"")
    ids = [f"x{i:02}.png" for i in range(70)]
    run = {"q": [(name, 0.5) for name in ids]}
    loader = CandidateLoader(in_folder(folder))
    (answer,) = rerank_run(run, [Item("q", text="red")], loader, MllmReranker(BrightnessScorer()), fusion="p-only")
    p = {hit.id: hit.p for hit in answer.ranking}
    assert p["x33.png"] is None
    for i in (0, 31, 32, 34, 63, 64, 69):
        assert p[f"x{i:02}.png"] == pytest.approx(3 * i / 255)
    assert np.isfinite([v for v in p.values() if v is not None]).all()


def test_threads_share_a_retriever(table: Table, colours: ColorEncoder) -> None:
    """Several threads ask at once, through one scorer's name, and get what one after the other gets."""
    retriever = Retriever(table, colours, "tiny-vl", shortlist=4, device="cpu", dtype="float32")
    queries = [flat(200, 0, 0), flat(0, 200, 0), "red", "blue"]
    expected = [Retriever(table, colours, retriever.reranker, shortlist=4).search(query).ranking for query in queries]
    with ThreadPoolExecutor(4) as pool:
        found = [answer.ranking for answer in pool.map(retriever.search, queries * 2)]
    assert [[hit.id for hit in ranking] for ranking in found] == [
        [hit.id for hit in ranking] for ranking in expected * 2
    ]
    assert [hit.p for hit in found[0]] == pytest.approx([hit.p for hit in expected[0]], abs=1e-5)
