"""Find the least p to show for a precision that holds for other queries too.

Precision of a threshold: the share of relevant pairs among those shown, over all queries. Pairs of one query are alike,
so what is resampled is queries (groups of queries that share a relevant item, which are alike as well):

1. A threshold passes if the lower end of the 95 % bootstrap interval of its precision reaches the target. Every
   resample gets one query more, which shows as many pairs as the query that shows most, all of them wrong: a new query
   may be unlike all that were labelled. Without it, few queries that are all right would promise everything, and a
   rare query that shows a whole page of wrong hits, which fifty labelled ones need not hold, would break the promise.
2. Thresholds are tried from the strictest on. The first one that fails after one that passed ends the search, so that
   trying many does not find a lucky one.
3. The choice is repeated on four fifths of the groups and applied to the last fifth, five times. If the precision over
   all these held-out pairs misses the target, the target is refused.

`benchmarks/precision.py` measures how often a stated precision is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts: TypeAlias = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 1000
GROUPS = 5
"""Fewest groups of queries that a threshold must show something of."""

GRID = 60
FOLDS = 5
LabelledPair: TypeAlias = tuple[str, float, bool]
"""The group of a pair's query, its p, and whether it is relevant."""


def thresholds(pairs: Sequence[LabelledPair], precisions: Iterable[float]) -> dict[str, float]:
    """Return the least p for every precision that can be promised, by its name ("0.9").

    A precision that fails on held-out queries is left out.
    """
    import numpy as np

    groups = sorted({group for group, _, _ in pairs})
    grid = _grid([p for _, p, _ in pairs])
    hits, shown = _counts(pairs, groups, grid)
    fold = np.arange(len(groups)) % FOLDS
    rng = np.random.default_rng(0)
    lows = _lower(hits, shown, rng)
    parts = [(fold == held, _lower(hits[fold != held], shown[fold != held], rng)) for held in range(FOLDS)]
    found: dict[str, float] = {}
    for precision in precisions:
        at = _least(lows, precision)
        if at is not None and _holds(hits, shown, parts, precision):
            found[f"{precision:g}"] = float(grid[at])
    return found


def _grid(p: Sequence[float]) -> NDArray[np.float64]:
    """Return thresholds from the strictest to the laxest: some of the values of p, spaced by the pairs they show."""
    import numpy as np

    ordered = np.sort(np.asarray(p, np.float64))[::-1]
    places = np.unique(np.geomspace(1, len(ordered), GRID).astype(int)) - 1
    return np.unique(ordered[places])[::-1]


def _counts(pairs: Sequence[LabelledPair], groups: Sequence[str], grid: NDArray[np.float64]) -> tuple[Counts, Counts]:
    """Return, for every group and threshold, how many relevant pairs and how many pairs are shown."""
    import numpy as np

    row = {group: number for number, group in enumerate(groups)}
    hits, shown = np.zeros((2, len(groups), len(grid)))
    for group, p, relevant in pairs:
        passed = grid <= p
        shown[row[group]] += passed
        hits[row[group]] += passed * relevant
    return hits, shown


def _lower(hits: Counts, shown: Counts, rng: np.random.Generator) -> Counts:
    """Return the lower end of the interval of each threshold's precision; NaN where too few groups show anything."""
    import numpy as np

    n = len(hits)
    if n == 0:
        return np.full(hits.shape[1], np.nan)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    wrong = shown.max(0)  # the query that is unlike all others
    precision = (drawn @ hits) / np.maximum(drawn @ shown + wrong, 1e-12)
    low: Any = np.quantile(precision, (1 - LEVEL) / 2, axis=0)
    return np.where((shown > 0).sum(0) >= GROUPS, low, np.nan)


def _least(low: Counts, precision: float) -> int | None:
    """Return the laxest threshold that passes, of those next to the first one that does; None if none passes."""
    import numpy as np

    passing = np.flatnonzero(low >= precision)
    if not len(passing):
        return None
    failing = np.flatnonzero(~(low[passing[0] :] >= precision))
    return int(passing[0] + failing[0] - 1) if len(failing) else len(low) - 1


def _holds(hits: Counts, shown: Counts, parts: Sequence[tuple[Any, Counts]], precision: float) -> bool:
    """Return whether thresholds chosen without a fifth of the groups reach the precision on that fifth."""
    right = seen = 0.0
    for held, low in parts:
        at = _least(low, precision)
        if at is not None:
            right += float(hits[held, at].sum())
            seen += float(shown[held, at].sum())
    return seen > 0 and right >= precision * seen


def linked(relevant: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the group of each query, named by its first query: queries that share a relevant item, or are linked so.

    >>> linked([("a", "x"), ("b", "x"), ("b", "y"), ("c", "z")])
    {'a': 'a', 'b': 'a', 'c': 'c'}
    """
    first: dict[str, str] = {}
    return joined((query, first.setdefault(item, query)) for query, item in relevant)


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return for each name the least of all names that pairs link to it, directly or through others.

    >>> joined([("b", "a"), ("c", "b"), ("d", "d")])
    {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (over := above.setdefault(name, name)) != name:
            above[name] = above[over]
            name = over
        return name

    for one, another in pairs:
        least, other = sorted((top(one), top(another)))
        above[other] = least
    return {name: top(name) for name in sorted(above)}
