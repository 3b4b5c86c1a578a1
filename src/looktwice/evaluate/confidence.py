"""Measure answers across queries by their confidence: GAP and ACC of the Met dataset (NeurIPS 2021).

A query's answer is the first item of its list, and its confidence that item's score. It is right if the item is
relevant; an answer to a query without relevant items is always wrong.

    GAP  = 1 / M · Σ_i right(i) · (right(1) + … + right(i)) / i      answers sorted by confidence, over all queries
    GAP− = the same over the M queries that have an answer
    ACC  = the share of these M queries that are answered right

Source: the Met dataset's paper, section 4, and its evaluation code; GAP is also known as micro AP (Google Landmarks).
Equal confidences keep the order of query ids, so that the figure does not depend on the order of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from looktwice.errors import UsageError
from looktwice.evaluate.trec import Qrels, Run


def confidence_measures(run: Run, qrels: Qrels) -> dict[str, float]:
    """Return GAP, GAP- and ACC over the queries of `qrels`. Raises UsageError if none has a relevant item."""
    known = {query for query, labels in qrels.items() if any(grade > 0 for grade in labels.values())}
    if not known:
        raise UsageError("No query has a relevant document; check the labels.")
    answers = [(query, *run[query][0]) for query in sorted(qrels) if run.get(query)]
    ranked = sorted(answers, key=lambda answer: -answer[2])
    right = {query: qrels[query].get(document, 0) > 0 for query, document, _ in ranked}
    return {
        "GAP": global_precision([right[query] for query, *_ in ranked], len(known)),
        "GAP-": global_precision([right[query] for query, *_ in ranked if query in known], len(known)),
        "ACC": sum(right.values()) / len(known),
    }


def global_precision(right: Sequence[bool], answerable: int) -> float:
    """Return GAP of answers sorted by falling confidence.

    >>> global_precision([True, False, True], answerable=2)
    0.8333333333333333
    """
    found, total = 0, 0.0
    for rank, hit in enumerate(right, start=1):
        found += hit
        total += found / rank if hit else 0.0
    return total / answerable


def mean_of_means(values: Mapping[str, Mapping[str, float]]) -> list[float]:
    """Return one value per query such that their plain mean is the mean of the groups' means.

    Resampling them gives the interval of that mean. `values` maps groups to values by query.

    >>> sum(mean_of_means({"a": {"x": 1.0}, "b": {"y": 0.0, "z": 0.0, "u": 0.5, "v": 0.5}})) / 5
    0.625
    """
    total = sum(map(len, values.values()))
    return [value * total / (len(values) * len(group)) for group in values.values() for value in group.values()]
