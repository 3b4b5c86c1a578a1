"""The adapter for mteb: by itself on plain rows, and in a task of mteb's where that is installed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from looks import Colours, Histograms, coarse_noise

from looktwice.errors import UsageError
from looktwice.integrations.mteb import TwoLooks
from looktwice.search.mllm_reranker import MllmReranker


class Rows(list):
    """As much of a `datasets.Dataset` as the adapter uses."""

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


CORPUS = Rows({"id": f"d{i}", "image": coarse_noise(i)} for i in range(6))
QUERIES = Rows({"id": f"q{i}", "image": coarse_noise(i).rotate(2)} for i in range(3))


def test_both_looks_rank_the_whole_corpus_or_what_is_given():
    for look in (None, MllmReranker(Histograms())):
        model = TwoLooks(Colours(), look, shortlist=3)
        model.index(CORPUS, task_metadata=None, hf_split="test", hf_subset="default", encode_kwargs={}, num_proc=None)
        found = model.search(QUERIES, top_k=5, encode_kwargs={})
        assert {query: max(scores, key=scores.get) for query, scores in found.items()} == {
            "q0": "d0",
            "q1": "d1",
            "q2": "d2",
        }
        assert all(len(scores) == 5 for scores in found.values())
        given = model.search(QUERIES, top_k=5, top_ranked={f"q{i}": ["d5", "d4"] for i in range(3)})
        assert all(set(scores) == {"d4", "d5"} for scores in given.values())


def test_a_large_corpus_is_ranked_without_a_copy_of_its_vectors():
    model = TwoLooks(Colours())
    model.index(Rows({"id": f"d{i % 100:02d}-{i}", "text": str(i % 500)} for i in range(3000)))
    tracemalloc.start()
    found = model.search(Rows({"id": f"q{i}", "text": str(i)} for i in range(3)), top_k=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < model._vectors.nbytes
    for i in range(3):  # the six with the query's words, by id, then the next best
        same = sorted(f"d{j % 100:02d}-{j}" for j in range(i, 3000, 500))
        assert list(found[f"q{i}"])[:6] == same and len(found[f"q{i}"]) == 8


def test_queries_are_encoded_as_queries_where_an_encoder_tells_them_apart():
    class Blind(Colours):
        def encode(self, items):
            return np.roll(super().encode(items)[:, ::-1], 1, axis=1)

    encoder = Colours()
    plain, other = TwoLooks(Colours()), TwoLooks(encoder)
    encoder.for_queries = Blind()
    found = []
    for model in (plain, other):
        model.index(CORPUS)
        found.append(model.search(QUERIES, top_k=6))
    assert found[0] != found[1]


def test_what_was_not_looked_at_stays_below():
    model = TwoLooks(Colours(), MllmReranker(Histograms()), shortlist=2, fusion="p-only")
    model.index(CORPUS)
    first = TwoLooks(Colours())
    first.index(CORPUS)
    for query, scores in model.search(QUERIES, top_k=6).items():
        coarse = first.search(QUERIES, top_k=6)[query]
        head = sorted(coarse, key=coarse.get, reverse=True)[:2]
        assert set(sorted(scores, key=scores.get, reverse=True)[:2]) == set(head)


def test_empty_documents_come_last_and_are_counted(monkeypatch, caplog):
    monkeypatch.setattr("looktwice.search.mllm_reranker.load_scorer", lambda mllm, *, prompt, **options: Histograms())
    empty = [{"id": "empty", "text": "", "image": None}, {"id": "blank", "text": " ", "image": None}]
    for look in (None, MllmReranker("any")):
        model = TwoLooks(Colours(), look, shortlist=8)
        model.index(Rows([*empty, *({"text": None, **row} for row in CORPUS)]))
        assert model.empty == 2 and "2 of 8 documents are empty and rank last, such as 'empty'" in caplog.text
        for scores in model.search(QUERIES, top_k=8).values():
            assert set(sorted(scores, key=scores.get)[:2]) == {"empty", "blank"} and len(scores) == 8
        nothing = model.search(Rows([{"id": "q", "text": ""}]), top_k=8, top_ranked={"q": ["d1", "empty"]})
        assert nothing["q"]["d1"] > nothing["q"]["empty"]


def test_misuse_is_refused():
    with pytest.raises(UsageError, match="index first"):
        TwoLooks(Colours()).search(QUERIES, top_k=1)
    with pytest.raises(UsageError, match="twice"):
        TwoLooks(Colours()).index(Rows([CORPUS[0], CORPUS[0]]))


def test_a_task_of_mteb_runs_through_it(tmp_path):
    mteb = pytest.importorskip("mteb", reason="mteb is only needed to run its tasks: pip install 'looktwice[bench]'")
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    class Squares(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Squares", description="local", reference=None, type="Any2AnyRetrieval", category="i2i",
            modalities=["image"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score="ndcg_at_10", date=None,
            domains=None, task_subtypes=None, license=None, annotations_creators=None, dialect=None,
            sample_creation=None, bibtex_citation=None, dataset={"path": "local/squares", "revision": "1"},
        )  # fmt: skip

        def load_data(self, *args, **kwargs):
            corpus, queries = (Dataset.from_list(list(rows)) for rows in (CORPUS, QUERIES))
            labels = {f"q{i}": {f"d{i}": 1} for i in range(3)}
            data = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=labels, top_ranked=None)
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    model = TwoLooks(Colours(), MllmReranker(Histograms()), shortlist=3)
    assert isinstance(model, mteb.models.SearchProtocol)
    done = mteb.evaluate(model, Squares(), cache=None, show_progress_bar=False)
    assert done.task_results[0].get_score() == pytest.approx(1.0)
