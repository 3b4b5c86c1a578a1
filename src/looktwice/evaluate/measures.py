"""Measure a ranking against labels; `docs/reference/measures.md` has every formula and its source.

ir-measures computes the standard measures. This module adds those of the instance-retrieval papers: `mAP@k` with the
divisor min(k, |G|), `oracle@k`, and `trapAP`, ROxford's trapezoids. Names are exact where papers differ: `success@1` is
the R@1 of papers on image and text, `recall@k` is TREC's; a bare `R@k` is refused. This module knows ids and ranks, no
file and no model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from looktwice.errors import UnknownName, UsageError, demand_list
from looktwice.evaluate.bootstrap import Interval, interval
from looktwice.evaluate.trec import Qrels, Run

_STANDARD = {"success": "Success", "recall": "R", "P": "P", "nDCG": "nDCG", "AP": "AP", "RR": "RR", "Rprec": "Rprec"}
_CUTOFF = {"success": True, "recall": True, "P": True, "Rprec": False}  # required or forbidden; else optional
_ELSEWHERE = {
    "map": "AP", "mrr": "RR", "recip_rank": "RR", "rr": "RR", "mrr_cut": "RR", "ap": "AP", "ndcg": "nDCG", "p": "P",
    "precision": "P", "hit": "success", "hits": "success", "hit_rate": "success", "success": "success",
    "recall": "recall", "rprec": "Rprec", "trapap": "trapAP", "oracle": "oracle",
}  # fmt: skip
"""Names of trec_eval and of other tools, and of ours in another case, in lower case."""
_OTHER = re.compile(r"([a-z_]+?)(?:_cut)?(?:[@_.]([1-9][0-9]*k?))?")
_NAME = re.compile(r"([A-Za-z]+)(?:@([1-9][0-9]*)(k?))?")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure by name, with the depth k of the lists; None reads whole lists. `str` gives its name.

    >>> Measure.parse("mAP@1k") == Measure("mAP", 1000), str(Measure.parse("success@1"))
    (True, 'success@1')
    """

    kind: str
    cutoff: int | None = None

    @classmethod
    def parse(cls, name: str | Measure) -> Measure:
        """Read `mAP@20`, `mAP@1k`, `success@1`, `AP`, … Raises UnknownName, or UsageError for the ambiguous `R@k`."""
        if isinstance(name, Measure):
            return name
        found = _NAME.fullmatch(name)
        kind, k, thousands = found.groups() if found else (name, None, "")
        if kind == "R" and k:
            raise UsageError(
                f"{name} is ambiguous; write success@{k} (any relevant one found) or recall@{k} (share of all)."
            )
        needs = _CUTOFF.get(kind)
        if kind not in measure_kinds() or (needs is not None and needs != bool(k)):
            depth = k or "10"
            known = (kind if _CUTOFF.get(kind) is False else f"{kind}@{depth}" for kind in measure_kinds())
            raise UnknownName("measure", name, known, meant=_meant(name))
        return cls(kind, int(k) * (1000 if thousands else 1) if k else None)

    def __str__(self) -> str:
        return self.kind if self.cutoff is None else f"{self.kind}@{self.cutoff}"


@dataclass(frozen=True, slots=True)
class Result:
    """The values of `measure` per measure and query, and the queries with problems.

    `per_query[name][query]` covers every query with at least one relevant document, in sorted order. Of these, the
    queries in `missing` were not in the run and count as 0. Every mean leaves out `without_relevant` (labelled, but
    without relevant documents) and `unlabelled` (in the run, but without labels).
    """

    per_query: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...]
    without_relevant: tuple[str, ...]
    unlabelled: tuple[str, ...]

    def __getitem__(self, name: str) -> float:
        """Return the mean over queries of one measure, by its requested name."""
        return fmean(self.per_query[name].values())

    @property
    def queries(self) -> int:
        """Return the number of queries in each mean."""
        return len(next(iter(self.per_query.values()), ()))

    def interval(self, name: str, *, level: float = 0.95, resamples: int = 10_000, seed: int | None = 0) -> Interval:
        """Return the mean with its bootstrap confidence interval; see `bootstrap.interval`."""
        return interval(self.per_query[name].values(), level=level, resamples=resamples, seed=seed)


def _meant(name: str) -> str | None:
    """Return the name here of a measure that another tool calls `name`, such as map, ndcg_cut_10 or P_5."""
    found = _OTHER.fullmatch(name.lower())
    kind = _ELSEWHERE.get(found[1]) if found else None
    if found is None or kind is None:
        return None
    depth = found[2] or ("10" if _CUTOFF.get(kind) else None)
    return kind if depth is None or _CUTOFF.get(kind) is False else f"{kind}@{depth}"


def measure_kinds() -> tuple[str, ...]:
    """Return the names that `Measure.parse` knows, without their depth."""
    return (*_OWN, *_STANDARD)


def measure(run: Run, qrels: Qrels, names: Iterable[str | Measure]) -> Result:
    """Measure a run, whose lists are ordered best first: only their order counts, not the scores.

    A document without a label is not relevant. A query of `qrels` that the run lacks counts as 0 in every measure.
    Raises UsageError when no query has a relevant document or a list names one twice; UnknownName for a measure.
    """
    demand_list(names, "The measures")
    wanted = {str(name): Measure.parse(name) for name in names}
    labels = {query: labelled for query, labelled in sorted(qrels.items()) if any(r > 0 for r in labelled.values())}
    if not labels:
        raise UsageError("No query has a relevant document; check the labels.")
    rankings = {query: [document for document, _ in run.get(query, ())] for query in labels}
    for query, ranking in rankings.items():
        if len(set(ranking)) < len(ranking):
            raise UsageError(f"The list of query {query!r} has a document twice; list each document once.")
    standard = _by_ir_measures({m for m in wanted.values() if m.kind in _STANDARD}, rankings, labels)
    return Result(
        per_query={name: standard[m] if m in standard else _own(m, rankings, labels) for name, m in wanted.items()},
        missing=tuple(query for query in labels if query not in run),
        without_relevant=tuple(sorted(qrels.keys() - labels.keys())),
        unlabelled=tuple(sorted(run.keys() - qrels.keys())),
    )


def average_precision(hits: Sequence[bool], relevant: int, k: int | None = None) -> float:
    """Return AP@k = Σ over hits in the top k of the precision at their rank, divided by min(k, |G|).

    `hits` says for each rank whether it holds a relevant document; `relevant` is |G| ≥ 1. Source: ILIAS (CVPR 2025),
    evaluation script; GLDv2's mAP@100 is the same. A perfect ranking scores 1 even where |G| > k; TREC's AP@k, which
    divides by |G|, does not.

    >>> average_precision([True, False, True], relevant=2)
    0.8333333333333333
    """
    found, total = 0, 0.0
    for rank, hit in enumerate(hits[:k], start=1):
        found += hit
        total += found / rank if hit else 0.0
    return total / _divisor(relevant, k)


def oracle(hits: Sequence[bool], relevant: int, k: int | None = None) -> float:
    """Return the AP@k of a perfect re-ranking of the same top k: its relevant documents / min(k, |G|).

    Source: ILIAS, evaluation script, in the count form that also holds for lists shorter than k. The script divides by
    |G|, which is the same wherever |G| ≤ k.

    >>> oracle([False, True, False], relevant=2)
    0.5
    """
    return sum(hits[:k]) / _divisor(relevant, k)


def trapezoidal(hits: Sequence[bool], relevant: int, k: int | None = None) -> float:
    """Return the area under the precision-recall curve by trapezoids: 1/|G| · Σ over hits of (P(i−1) + P(i)) / 2.

    Source: Revisiting Oxford and Paris (CVPR 2018), `compute_ap` of its evaluation script. P(0) = 1.
    Leave junk out of `hits`.

    >>> trapezoidal([False, True], relevant=1)
    0.25
    """
    found, total = 0, 0.0
    for rank, hit in enumerate(hits[:k], start=1):
        if hit:
            before = found / (rank - 1) if rank > 1 else 1.0
            found += 1
            total += (before + found / rank) / 2
    return total / relevant


def found_precision(hits: Sequence[bool], relevant: int, k: int | None = None) -> float:
    """Return the mean precision at the hits in the top k: the sum of `average_precision`, divided by the hits found.

    Source: Product1M (ICCV 2021), evaluation script. A list with one hit on top scores 1, whatever it misses, so that
    the figure can fall when more is found: compare it only with figures of that script.

    >>> found_precision([True, False, False], relevant=5)
    1.0
    """
    found = sum(hits[:k])
    return average_precision(hits, relevant, k) * _divisor(relevant, k) / found if found else 0.0


_OWN: dict[str, Callable[[Sequence[bool], int, int | None], float]] = {
    "mAP": average_precision,
    "oracle": oracle,
    "trapAP": trapezoidal,
    "foundAP": found_precision,
}


def _divisor(relevant: int, k: int | None) -> int:
    return relevant if k is None else min(k, relevant)


def _own(m: Measure, rankings: Mapping[str, list[str]], labels: Qrels) -> dict[str, float]:
    return {
        query: _OWN[m.kind](
            [labels[query].get(document, 0) > 0 for document in ranking],
            sum(relevance > 0 for relevance in labels[query].values()),
            m.cutoff,
        )
        for query, ranking in rankings.items()
    }


def _by_ir_measures(
    wanted: Iterable[Measure], rankings: Mapping[str, list[str]], labels: Qrels
) -> dict[Measure, dict[str, float]]:
    """Compute measures with ir-measures, with numbers in place of ids and scores.

    trec_eval, underneath, holds scores as 32-bit floats, breaks ties by id and takes ids as C strings. Distinct whole
    numbers as scores and ids avoid ties and invalid strings. Negative relevance (junk) is passed as 0.
    """
    import ir_measures

    names = {ir_measures.parse_measure(str(Measure(_STANDARD[m.kind], m.cutoff))): m for m in wanted}
    queries = {str(number): query for number, query in enumerate(rankings)}
    run, qrels = {}, {}
    for number, query in queries.items():
        ids = {document: str(i) for i, document in enumerate(dict.fromkeys([*rankings[query], *labels[query]]))}
        run[number] = {ids[document]: -float(rank) for rank, document in enumerate(rankings[query])}
        qrels[number] = {ids[document]: max(relevance, 0) for document, relevance in labels[query].items()}
    found: dict[Measure, dict[str, float]] = {m: dict.fromkeys(rankings, 0.0) for m in names.values()}
    for metric in ir_measures.iter_calc(list(names), qrels, run) if names else ():
        found[names[metric.measure]][queries[metric.query_id]] = float(metric.value)
    return found
