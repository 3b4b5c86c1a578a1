"""Five ways to search the bundled gallery: what `test_golden` holds fixed, and what writes the files it compares with.

    python tests/golden/settings.py            # answers.json, after a change that is meant to change answers

The rows are rounded to 5 decimals, computed in float32 and of images resampled by Pillow, so that every CPU gives the
same, with torchvision or without.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import ProcessorMixin

from looktwice import Retriever, Table, index, load_encoder, scan
from looktwice.evaluate import read_qrels
from looktwice.experiment.demo import bundled_gallery
from looktwice.rank.calibration import Calibration, fit, source_of
from looktwice.score import load_scorer
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.sources.queries import Queries
from looktwice.token_index import add_tokens

ANSWERS = Path(__file__).parent / "answers.json"
IMAGES, QUERIES, SHORTLIST, K = 60, 40, 12, 6
ASKED = ("p00", "p07", "p19", "w00", "w05")
PLACE = {"device": "cpu", "dtype": "float32"}
VARYING = ("seconds", "pairs_per_second", "versions", "machine")

SETTINGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"codec": "images"}),
    "stored tokens": ({}, {"codec": "int8", "fusion": "p-only"}),
    "cascade": ({}, {"codec": "int8", "budget": "cascade:pool2+int8@4", "fusion": "rrf"}),
    "early stop": ({"prompt": "object"}, {"codec": "int8", "budget": "auto:0.3@1", "ties": "coarse"}),
    "ties by question": ({"score_mode": "digit"}, {"codec": "int8", "ties": "paper", "fusion": "p-only"}),
    "choice": ({"score_mode": "choice"}, {"codec": "int8"}),
}


def pillow() -> Any:
    """Let no processor resample with torchvision while this lasts: it moves p by up to 0.002, and near ties with it."""
    stock = ProcessorMixin.from_pretrained.__func__
    load = classmethod(lambda cls, *source, **how: stock(cls, *source, **how, backend="pil"))
    return patch.object(ProcessorMixin, "from_pretrained", load)


def make_table(folder: Path) -> Table:
    """A table of the gallery's first images, with two token sets."""
    encoder = load_encoder("tiny-clip", **PLACE)
    table = Table.create(folder / "gallery.lt", encoder.info)
    images = sorted((bundled_gallery() / "images").glob("*.jpg"))[:IMAGES]
    index(table, scan(images), encoder)
    for codec in ("int8", "pool2+int8"):
        add_tokens(table, load_scorer("tiny-vl", **PLACE), codec)
    return table


def answers(table: Table, name: str) -> Iterator[Answer]:
    """What the queries get under one of SETTINGS."""
    model, how = SETTINGS[name]
    asked = [query for query in Queries(bundled_gallery() / "queries.jsonl") if query.id in ASKED]
    if "auto" in how.get("budget", ""):
        how = {**how, "calibration": calibration(table)}
        asked = [query for query in asked if query.image is not None]  # a calibration is for one prompt
    look = MllmReranker("tiny-vl", **PLACE, **model)
    yield from Retriever(table, None, look, shortlist=SHORTLIST, **PLACE, **how).search_many(asked, k=K)


def calibration(table: Table) -> Calibration:
    """Fitted on the image queries, on the same table: good enough to hold answers fixed, not to measure anything."""
    look, samples, source = MllmReranker("tiny-vl", prompt="object", **PLACE), [], {}
    labels = read_qrels(bundled_gallery() / "qrels.txt")
    retriever = Retriever(table, None, look, codec="int8", ties="coarse", shortlist=SHORTLIST, **PLACE)
    queries = [query for query in Queries(bundled_gallery() / "queries.jsonl") if query.image is not None]
    for answer in retriever.search_many(queries[:QUERIES:4], k=SHORTLIST):
        samples += answer.samples(labels[answer.query.id])
        source = source_of(answer.settings)
    return fit(samples, source)


def record(answer: Answer) -> dict[str, Any]:
    """An answer as plain data: all of its ranking, and its manifest without what differs from run to run."""
    hits = [[hit.id, hit.rank, rounded(hit.score), rounded(hit.coarse), rounded(hit.p)] for hit in answer.ranking]
    return {"query": answer.query.id, "hits": hits, "manifest": rounded(without(answer.manifest))}


def rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(float(value), 5) + 0.0 if isinstance(value, float) or hasattr(value, "dtype") else value


def without(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key not in VARYING}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, pillow():
        table = make_table(Path(folder))
        found = {name: [record(answer) for answer in answers(table, name)] for name in SETTINGS}
    ANSWERS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
