"""Can the second look tell, without labels, which queries it hurts? Agreement with itself under mild changes.

Every image query is also asked mirrored and cropped. A query is hurt if the second look lowers its AP. Signals:

    tau        Kendall's τ between p of the query and the mean p of its changed forms, over the shortlist
    same best  share of changed forms with the same best candidate
    drift      −mean |Δ log-odds| between the query and its changed forms
    spread     standard deviation of p over the shortlist; needs no changed form
    top        the largest p of the shortlist; needs no changed form

For each: AUC of "not hurt" (0.5 is chance) with a 95 % bootstrap interval over queries, and the mAP of a guard that
falls back to the first look where the signal is below a threshold. The threshold is chosen on four fifths of the
drawings and applied to the last fifth, five times, so no query chooses its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.encode import load_encoder
from looktwice.evaluate import Qrels
from looktwice.evaluate.bootstrap import difference
from looktwice.evaluate.groups import measure_group
from looktwice.evaluate.scenes import SMALL, ScenesSize, build
from looktwice.indexing import index
from looktwice.rank.precision import linked
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats
from looktwice.store import Table
from looktwice.types import Item

FOLDS, EDGE, RESAMPLES = 5, 1e-6, 2000
TINY = ScenesSize("tiny", 24, 2, 12, 0)


@dataclass(frozen=True)
class Row:
    """One query: its id, AP of the first and of the second look, and the signals."""

    query: str
    first: float
    second: float
    signals: Mapping[str, float]

    @property
    def gain(self) -> float:
        return self.second - self.first


def changed(item: Item, crop: float = 0.85) -> Iterator[Item]:
    """Yield a query mirrored, and with its middle alone."""
    from PIL import ImageOps

    assert item.image is not None
    width, height = item.image.size
    left, top = int(width * (1 - crop) / 2), int(height * (1 - crop) / 2)
    yield Item(f"{item.id}/mirror", ImageOps.mirror(item.image))
    yield Item(f"{item.id}/crop", item.image.crop((left, top, width - left, height - top)))


def signals(p: Any, views: Any) -> dict[str, float]:
    """Return the signals of one query from p [n] and those of its changed forms [views, n]."""
    from scipy.stats import kendalltau

    tau = float(kendalltau(p, views.mean(0)).statistic)
    return {
        "tau": 0.0 if np.isnan(tau) else tau,
        "same best": float((views.argmax(1) == p.argmax()).mean()),
        "drift": -float(np.abs(_logit(views) - _logit(p)).mean()),
        "spread": float(p.std()),
        "top": float(p.max()),
    }


def _logit(p: Any) -> Any:
    p = np.clip(p, EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def rows(answers: Sequence[Answer], retriever: Retriever, qrels: Qrels, depth: int) -> Iterator[Row]:
    """Ask every query again in its changed forms."""
    name = f"mAP@{depth}"
    for answer in answers:
        ids = [candidate.id for candidate in answer.shortlist[:depth]]
        p = {hit.id: hit.p for hit in answer.ranking}
        views = [_scores(retriever, view, ids) for view in changed(answer.query)]
        labels = {answer.query.id: qrels[answer.query.id]}
        first, second = (
            measure_group({answer.query.id: run}, labels, [name]).per_query[name][answer.query.id]
            for run in ([(c.id, c.coarse) for c in answer.shortlist[:depth]], [(h.id, h.score) for h in answer.ranking])
        )
        found = signals(np.array([p[i] for i in ids], float), np.array(views, float))
        yield Row(answer.query.id, first, second, found)


def _scores(retriever: Retriever, query: Item, ids: Sequence[str]) -> Any:
    assert retriever.reranker is not None
    found = retriever.reranker.score(query, retriever.loader.find(ids), retriever.loader, RunStats())
    assert found is not None
    return found.p


def auc(values: Any, good: Any) -> float:
    """Return how often a good one has the larger value; NaN if all are alike."""
    from scipy.stats import rankdata

    n = int(good.sum())
    if n in (0, len(good)):
        return float("nan")
    return float((rankdata(values)[good].sum() - n * (n + 1) / 2) / (n * (len(good) - n)))


def auc_interval(values: Any, good: Any, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(good), size=len(good)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile([auc(values[rows], good[rows]) for rows in drawn], [0.025, 0.975])
    return [float(low), float(high)]


def guarded(found: Sequence[Row], name: str, groups: Mapping[str, str]) -> dict[str, float]:
    """Return each query's AP under a guard whose threshold other drawings chose."""
    order = sorted(set(groups.values()))
    fold = {group: number % FOLDS for number, group in enumerate(order)}
    kept: dict[str, float] = {}
    for held in range(FOLDS):
        others = [row for row in found if fold[groups[row.query]] != held]
        least = _threshold(others, name)
        for row in found:
            if fold[groups[row.query]] == held:
                kept[row.query] = row.second if row.signals[name] >= least else row.first
    return kept


def _threshold(found: Sequence[Row], name: str) -> float:
    """Return the threshold of the best mean AP; of equals the lowest, which trusts most."""
    tried = [-np.inf, *sorted({row.signals[name] for row in found}), np.inf]
    value: Callable[[float], float] = lambda t: sum(r.second if r.signals[name] >= t else r.first for r in found)  # noqa: E731
    return float(max(tried, key=lambda t: (round(value(t), 9), -t)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "tiny"), default="small", help="of the composed scenes")
    parser.add_argument("--data", type=Path, default=None, help="folder of scenes that are kept")
    parser.add_argument("--scores", type=Path, default=None, help="score cache, to continue a run")
    parser.add_argument("--shortlist", type=int, default=20)
    parser.add_argument("--queries", type=int, default=150, help="how many image queries to ask")
    asked = parse(parser, argv, size="tiny", shortlist=4)
    with tempfile.TemporaryDirectory() as made:
        found, groups = _measured(asked, Path(made))
    hurt = sum(row.gain < 0 for row in found)
    helped = sum(row.gain > 0 for row in found)
    means = [float(np.mean([getattr(row, look) for row in found])) for look in ("first", "second")]
    print(f"{len(found)} queries: {helped} gained, {hurt} lost; mAP@{asked.shortlist} {means[0]:.3f} → {means[1]:.3f}")
    table = [summary(found, name, groups) for name in found[0].signals]
    print(f"{'signal':10} {'AUC of not hurt':22} {'guarded mAP':12} guard − second look   falls back")
    for row in table:
        print(_line(row))
    finish("trust", asked, {"queries": len(found), "helped": helped, "hurt": hurt, "mAP": means, "rows": table})


def _measured(asked: argparse.Namespace, made: Path) -> tuple[list[Row], dict[str, str]]:
    dataset = build(asked.data or made / "scenes", SMALL if asked.size == "small" else TINY)
    encoder = load_encoder("tiny-clip")
    table = Table.create(made / "items.lt", encoder.info)
    index(table, dataset.items, encoder)
    retriever = Retriever(table, encoder, MllmReranker("tiny-vl", cache=asked.scores), shortlist=asked.shortlist)
    queries = [query.load() for query in dataset.queries]
    images = [query for query in queries if query.image is not None][: asked.queries]
    answers = list(retriever.search_many(images, k=asked.shortlist))
    found = list(rows(answers, retriever, dataset.qrels, asked.shortlist))
    relevant = [(q.id, item) for q in images for item, grade in dataset.qrels[q.id].items() if grade > 0]
    return found, linked(relevant)


def summary(found: Sequence[Row], name: str, groups: Mapping[str, str]) -> dict[str, Any]:
    values = np.array([row.signals[name] for row in found])
    good = np.array([row.gain >= 0 for row in found])
    kept = guarded(found, name, groups)
    change = difference(kept, {row.query: row.second for row in found})
    back = sum(kept[row.query] != row.second for row in found if row.gain)
    value, low_high = auc(values, good), auc_interval(values, good) if good.any() and not good.all() else [0.0, 1.0]
    return {
        "signal": name,
        "auc": 0.5 if np.isnan(value) else value,
        "auc interval": low_high,
        "guarded": float(np.mean([*kept.values()])),
        "change": list(change),
        "fell back": back,
    }


def _line(row: Mapping[str, Any]) -> str:
    low, high = row["auc interval"]
    change = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["change"])
    predicted = f"{row['signal']:10} {row['auc']:.3f} [{low:.3f}, {high:.3f}]"
    return f"{predicted}   {row['guarded']:.3f}        {change}   {row['fell back']}"


if __name__ == "__main__":
    main()
