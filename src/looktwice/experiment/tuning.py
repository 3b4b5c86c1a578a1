"""Split queries into those that tune the fusion weight and those that are reported."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from looktwice.errors import UsageError
from looktwice.evaluate import Qrels
from looktwice.rank.precision import joined

_SHARE = re.compile(r"(\d{1,2}(?:\.\d+)?)%")


@dataclass(frozen=True, slots=True)
class Split:
    """Queries for tuning, queries for reporting, and the rule that split them."""

    rule: str
    tuned_on: frozenset[str]
    reported: frozenset[str]


def split_queries(rule: str, qrels: Qrels) -> Split:
    """Split queries by `rule`: a share such as `20%`, or a file with one query id per line.

    A share is drawn by hash. Queries that share a relevant item, directly or through others, stay together, so that no
    object used for tuning is reported. Raises UsageError for any other rule, an unknown id, or a side without queries.
    """
    labelled = {query for query, labels in qrels.items() if any(grade > 0 for grade in labels.values())}
    share = _SHARE.fullmatch(rule)
    chosen = _drawn(qrels, labelled, float(share[1]) / 100) if share else _listed(rule, qrels)
    if not chosen & labelled or not labelled - chosen:
        raise UsageError(f"--tune-on {rule} leaves one side without labelled queries; choose another split.")
    return Split(rule, frozenset(chosen), frozenset(qrels.keys() - chosen))


def _drawn(qrels: Qrels, labelled: set[str], share: float) -> set[str]:
    relevant = {query: [name for name, grade in qrels[query].items() if grade > 0] for query in labelled}
    groups = joined((names[0], name) for names in relevant.values() for name in names)
    return {query for query, names in relevant.items() if _place(groups[names[0]]) < share}


def _place(name: str) -> float:
    """Return a number in [0, 1) that depends only on a name."""
    return int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32


def _listed(rule: str, qrels: Qrels) -> set[str]:
    path = Path(rule)
    if not path.is_file():
        raise UsageError(f"--tune-on takes a share such as 20% or a file of query ids; {rule!r} is neither.")
    names = {line for line in path.read_text("utf-8", "surrogateescape").split("\n") if line.strip()}
    if unknown := sorted(names - qrels.keys()):
        raise UsageError(
            f"{rule} names queries that the benchmark lacks ({len(unknown)}, such as {unknown[0]!r}); remove them."
        )
    return names
