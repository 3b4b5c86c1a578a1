"""The adapters for sentence-transformers: called as its evaluators call, and by them where it is installed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from looks import Colours, Histograms, coarse_noise

from looktwice import Item, Reranker
from looktwice.errors import UsageError
from looktwice.integrations.sentence_transformers import UNSCORED, AsCrossEncoder, AsSentenceTransformer

REASON = "sentence-transformers is only needed to run its own evaluators: pip install sentence-transformers"
# what version 6.2 passes
PREDICT = {"prompt_name": None, "batch_size": 64, "convert_to_numpy": True, "show_progress_bar": False}
ENCODE = {
    "prompt_name": None, "prompt": None, "batch_size": 32, "show_progress_bar": False, "convert_to_tensor": True,
    "truncate_dim": None,
}  # fmt: skip


DOCUMENTS = {f"d{i}": coarse_noise(i) for i in range(6)}
QUERIES = {f"q{i}": coarse_noise(i).rotate(2) for i in range(3)}
RELEVANT = {f"q{i}": {f"d{i}"} for i in range(3)}


class Reversed(Histograms):
    """Likes what differs most, so that a second look can be told from none."""

    def _one(self, query, candidate):
        return 1 - super()._one(query, candidate)


def test_pairs_are_predicted_as_a_reranking_evaluator_asks():
    model = AsCrossEncoder(Reranker(Histograms()))
    pairs = [[QUERIES["q1"], document] for document in DOCUMENTS.values()]
    p = model.predict(pairs, **PREDICT)
    assert p.shape == (6,) and p.argmax() == 1 and model.unscored == 0
    assert p == pytest.approx(Reranker(Histograms()).predict([tuple(pair) for pair in pairs]))
    with pytest.raises(UsageError, match="prompt"):
        model.predict(pairs, **{**PREDICT, "prompt_name": "query"})


def test_a_pair_without_a_score_is_counted_and_comes_last(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    model = AsCrossEncoder(Reranker(Histograms()))
    p = model.predict([[QUERIES["q0"], str(tmp_path / "broken.png")], [QUERIES["q0"], DOCUMENTS["d0"]]], **PREDICT)
    assert p[0] == UNSCORED < 0 <= p[1] and model.unscored == 1


def test_documents_are_ranked_as_a_retrieval_evaluator_asks():
    scorer = Reversed()
    model = AsSentenceTransformer(Colours(), Reranker(scorer), fusion="p-only", shortlist=2)
    queries = model.encode_query(list(QUERIES.values()), **ENCODE)
    documents = model.encode_document(list(DOCUMENTS.values()), **ENCODE)
    found = model.similarity(queries, documents).numpy()
    coarse = AsSentenceTransformer(Colours())
    first = coarse.similarity(
        coarse.encode_query(list(QUERIES.values()), **ENCODE),
        coarse.encode_document(list(DOCUMENTS.values()), **ENCODE),
    ).numpy()
    assert scorer.pairs == 3 * 2 and found.shape == (3, 6)
    for before, after in zip(first, found, strict=True):
        shortlist, tail = np.argsort(-before)[:2], np.argsort(-before)[2:]
        assert after[shortlist].min() > after[tail].max()  # what was not looked at stays below
        assert (np.argsort(-after)[2:] == tail).all() and after[shortlist[1]] > after[shortlist[0]]


def test_chunks_of_a_corpus_give_the_same_scores_as_the_whole_where_all_is_looked_at():
    model = AsSentenceTransformer(Colours(), Reranker(Histograms()), shortlist=6)
    queries, documents = model.encode_query(list(QUERIES.values())), model.encode_document(list(DOCUMENTS.values()))
    whole = model.similarity(queries, documents)
    parts = [model.similarity(queries, documents[:4]), model.similarity(queries, documents[4:])]
    assert np.concatenate(parts, axis=1) == pytest.approx(whole.numpy())
    with pytest.raises(UsageError, match="truncate_dim"):
        model.encode_query(["words"], truncate_dim=8)


def test_pictures_in_files_are_not_held_in_memory(tmp_path):
    class Watched(Colours):
        seen: list[weakref.ref] = []  # noqa: RUF012

        def encode(self, items):
            self.seen += [weakref.ref(item.image) for item in items]
            return super().encode(items)

    paths = [tmp_path / f"{name}.png" for name in DOCUMENTS]
    for path, document in zip(paths, DOCUMENTS.values(), strict=True):
        document.save(path)
    model, plain = (AsSentenceTransformer(Watched(), Reranker(Histograms())) for _ in range(2))
    queries, documents = model.encode_query(list(QUERIES.values())), model.encode_document(paths)
    gc.collect()
    assert not any(picture() for picture in Watched.seen[len(QUERIES) :])
    expected = plain.similarity(
        plain.encode_query(list(QUERIES.values())), plain.encode_document(list(DOCUMENTS.values()))
    )
    assert model.similarity(queries, documents).numpy() == pytest.approx(expected.numpy())


def test_queries_are_encoded_as_queries_where_an_encoder_tells_them_apart():
    class Shifted(Colours):
        def encode(self, items):
            return np.roll(super().encode(items), 1, axis=1)

    encoder = Colours()
    encoder.for_queries = Shifted()
    model = AsSentenceTransformer(encoder)
    queries, documents = model.encode_query(list(QUERIES.values())), model.encode_document(list(DOCUMENTS.values()))
    items = [Item("", image=picture) for picture in (*QUERIES.values(), *DOCUMENTS.values())]
    expected = Shifted().encode(items[:3]) @ Colours().encode(items[3:]).T
    assert model.similarity(queries, documents).numpy() == pytest.approx(expected, abs=1e-6)


def test_its_reranking_evaluator_runs():
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation", reason=REASON)
    samples = [
        {"query": QUERIES[f"q{i}"], "positive": [DOCUMENTS[f"d{i}"]], "documents": list(DOCUMENTS.values())[::-1]}
        for i in range(3)
    ]
    model = AsCrossEncoder(Reranker(Histograms()))
    found = evaluation.CrossEncoderRerankingEvaluator(samples, name="squares", write_csv=False)(model)
    assert found["squares_map"] == pytest.approx(1.0) and found["squares_base_map"] < 0.5
    assert model.model_card_data.evaluations[0][0] == "CrossEncoderRerankingEvaluator"


def test_its_retrieval_evaluator_runs_coarse_and_with_a_second_look():
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation", reason=REASON)
    evaluator = evaluation.InformationRetrievalEvaluator(QUERIES, DOCUMENTS, RELEVANT, corpus_chunk_size=4)
    assert evaluator(AsSentenceTransformer(Colours()))["cosine_accuracy@1"] == pytest.approx(1.0)
    good = AsSentenceTransformer(Colours(), Reranker(Histograms()))
    assert evaluator(good)["second-look_accuracy@1"] == pytest.approx(1.0)
    bad = AsSentenceTransformer(Colours(), Reranker(Reversed()), fusion="p-only")
    assert evaluator(bad)["second-look_accuracy@1"] == 0
