"""Does it help the first look to take each image's mean score over a bank of queries from its score?

Some images are near every query (hubs). Five rules over the same cosines, on composed scenes and the gallery:

    plain      cosine
    mean       cosine − mean over the bank (`--hubness bank`)
    csls       2 · cosine − mean of the bank's ten best (Lample et al., ICLR 2018)
    softmax    β · cosine − log Σ exp(β · bank), β = 20: the inverted softmax (Smith et al., ICLR 2017)
    qb-norm    the same, only for queries whose best image is some bank query's best (Bogolin et al., CVPR 2022)

The bank of texts is the bundled list of words, without words that a query asks for; the bank of images are the other
images of the collection. Differences to `plain` are paired, with 95 % bootstrap intervals over queries. Nothing is
tuned: weights and β are those of the sources.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.encode import load_encoder
from looktwice.evaluate import Qrels, read_qrels
from looktwice.evaluate.bootstrap import difference
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.scenes import FULL, SMALL, build
from looktwice.experiment.demo import bundled_gallery
from looktwice.search.hubness import bundled_words, wording
from looktwice.sources import scan
from looktwice.types import Encoder, Item

MEASURES = ("success@1", "mAP@20", "recall@50", "recall@1000")  # the last is what a middle look is given
BETA, BEST = 20.0, 10


def rules(scores: Any, bank: Any) -> Iterator[tuple[str, Any]]:
    """Yield each rule's scores [queries, items] from cosines of the queries and of the bank, both with all items."""
    yield "plain", scores
    yield "mean", scores - np.nanmean(bank, 0)
    best = -np.sort(-np.nan_to_num(bank, nan=-1.0), axis=0)[:BEST]
    yield "csls", 2 * scores - best.mean(0)
    power = BETA * np.nan_to_num(bank, nan=-1e9)
    most = power.max(0)
    soft = BETA * scores - (most + np.log(np.exp(power - most).sum(0)))
    yield "softmax", soft
    hubs = set(np.nan_to_num(bank, nan=-1.0).argmax(1).tolist())
    near_a_hub = np.array([place in hubs for place in scores.argmax(1)])
    # both halves are ranked query by query, so that different scales do not meet
    yield "qb-norm", np.where(near_a_hub[:, None], soft, scores)


def vectors(encoder: Encoder, items: Sequence[Item]) -> Any:
    return np.concatenate([encoder.encode(items[i : i + 32]) for i in range(0, len(items), 32)])


def loaded(dataset: Dataset) -> tuple[list[str], list[Item], list[Item]]:
    """Return the ids and images of the items, and the queries."""
    items = [Query(source).load() for source in dataset.items]  # type: ignore[arg-type]
    return [item.id for item in items], items, [query.load() for query in dataset.queries]


def gallery() -> tuple[list[str], list[Item], list[Item], Qrels]:
    folder = bundled_gallery()
    items = [Query(source).load() for source in scan([folder / "images"])]  # type: ignore[arg-type]
    from looktwice.sources.queries import Queries

    queries = list(Queries(folder / "queries.jsonl"))
    return [item.id for item in items], items, queries, read_qrels(folder / "qrels.txt")


def rows(
    name: str, ids: Sequence[str], images: Any, queries: Sequence[Item], encoder: Encoder, qrels: Qrels
) -> Iterator[dict[str, Any]]:
    """Yield one row per kind of query and rule."""
    for kind, asked in {
        "text": [q for q in queries if q.image is None],
        "image": [q for q in queries if q.image is not None],
    }.items():
        if not asked:
            continue
        bank = _words_bank(encoder, asked) @ images.T if kind == "text" else _images_bank(images)
        plain: Mapping[str, Any] = {}
        for rule, scores in rules(vectors(encoder, asked) @ images.T, bank):
            order = np.argsort(-scores, axis=1, kind="stable")[:, :1000]
            run = {q.id: [(ids[i], -float(r)) for r, i in enumerate(order[n])] for n, q in enumerate(asked)}
            found = measure_group(run, {q.id: qrels.get(q.id, {}) for q in asked}, MEASURES)
            plain = plain or found.per_query
            yield {
                "data": name,
                "queries": f"{kind} ({found.queries})",
                "rule": rule,
                **{m: found[m] for m in MEASURES},
                **{f"Δ {m}": list(difference(found.per_query[m], plain[m])) for m in MEASURES},
            }


def _words_bank(encoder: Encoder, asked: Sequence[Item]) -> Any:
    told = {word for query in asked for word in (query.text or "").lower().split()}
    return vectors(encoder, [Item(word, text=wording(word)) for word in bundled_words() if word not in told])


def _images_bank(images: Any, most: int = 1000) -> Any:
    """Return cosines of up to `most` images of the collection with all; NaN with themselves."""
    rows = np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)
    bank = images[rows] @ images.T
    bank[np.arange(len(rows)), rows] = np.nan
    return bank


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="tiny-clip")
    parser.add_argument("--size", choices=("small", "full", "none"), default="full", help="of the composed scenes")
    parser.add_argument("--data", type=Path, default=None, help="folder of scenes that are kept")
    asked = parse(parser, argv, size="none")
    encoder = load_encoder(asked.encoder)
    found = []
    with tempfile.TemporaryDirectory() as kept:
        sets = [("gallery", *gallery())]
        if asked.size != "none":
            dataset = build(asked.data or Path(kept), SMALL if asked.size == "small" else FULL)
            sets.append((f"scenes ({asked.size})", *loaded(dataset), dataset.qrels))
        print(f"{'data':15} {'queries':14} {'rule':8} {'  '.join(MEASURES)}  their differences to plain [95 %]")
        for name, ids, items, queries, qrels in sets:
            for row in rows(name, ids, vectors(encoder, items), queries, encoder, qrels):
                found.append(row)
                print(_line(row), flush=True)
    finish("hubs", asked, {"encoder": asked.encoder, "rows": found})


def _line(row: Mapping[str, Any]) -> str:
    own = "  ".join(f"{row[m]:{len(m)}.3f}" for m in MEASURES)
    deltas = "  ".join("{:+.3f} [{:+.3f}, {:+.3f}]".format(*row[f"Δ {m}"]) for m in MEASURES)
    return f"{row['data']:15} {row['queries']:14} {row['rule']:8} {own}  {deltas}"


if __name__ == "__main__":
    main()
