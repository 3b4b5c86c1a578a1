"""How often does a promised precision fail for other queries? A simulation with known truth; no model is run.

Every query has 50 candidates and a difficulty of its own: a shift of the log-odds, drawn from N(0, spread). In the
world "labels" it moves how likely a pair is relevant at a given p; in "scores" it moves p and not the labels, which are
relevant one time in ten. A calibration of so many queries promises a precision; its true precision is that on 20,000
other queries. `below` is the share of all calibrations that promised and missed (nominal: 2.5 %), `refused` the share
that promised nothing, `shown` the share of relevant pairs that the promised threshold shows. "pairs" is the interval
over pairs that looktwice used before (Wilson), "queries" the one of today.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from _smoke import finish, parse

from looktwice.rank.precision import thresholds

CANDIDATES, Z = 50, 1.959964
Choose = Callable[[Any, Any, float], float | None]


def world(name: str, rng: np.random.Generator, queries: int, spread: float) -> tuple[Any, Any]:
    """Return log-odds and labels [queries, candidates]."""
    shift = rng.normal(0, spread, (queries, 1))
    if name == "labels":
        z = rng.normal(-3, 3, (queries, CANDIDATES))
        return z, rng.random(z.shape) < 1 / (1 + np.exp(-(z + shift)))
    relevant = rng.random((queries, CANDIDATES)) < 0.1
    return np.where(relevant, 2.0, -2.0) + rng.normal(0, 1.5, relevant.shape) + shift, relevant


def by_pairs(z: Any, relevant: Any, precision: float) -> float | None:
    """Return the least log-odds from which on Wilson's interval over pairs reaches the precision."""
    order = np.argsort(-z.ravel())
    n = np.arange(1, z.size + 1)
    share = np.cumsum(relevant.ravel()[order]) / n
    spread = Z * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    passing = np.flatnonzero((share + Z * Z / (2 * n) - spread) / (1 + Z * Z / n) >= precision)
    return float(z.ravel()[order][passing[-1]]) if len(passing) else None


def by_queries(z: Any, relevant: Any, precision: float) -> float | None:
    """Return what `looktwice calibrate` promises today."""
    pairs = [(str(q), float(x), bool(r)) for q, row in enumerate(z) for x, r in zip(row, relevant[q], strict=True)]
    return thresholds(pairs, [precision]).get(f"{precision:g}")


def rows(runs: int, precision: float, truth: int) -> Iterator[dict[str, Any]]:
    for name in ("labels", "scores"):
        for spread in (0.0, 1.0, 2.0):
            z, relevant = world(name, np.random.default_rng(99), truth, spread)
            for queries in (20, 50, 200):
                for method, choose in (("pairs", by_pairs), ("queries", by_queries)):
                    about = {"world": name, "spread": spread, "queries": queries, "method": method}
                    yield about | operating(choose, (name, queries, spread), (z, relevant), runs, precision)


def operating(
    choose: Choose, drawn: tuple[str, int, float], truth: tuple[Any, Any], runs: int, precision: float
) -> Any:
    name, queries, spread = drawn
    z, relevant = truth
    below = refused = 0
    shown, reached = [], []
    for seed in range(runs):
        least = choose(*world(name, np.random.default_rng(seed), queries, spread), precision)
        if least is None:
            refused += 1
            continue
        true = float(relevant[z >= least].mean()) if (z >= least).any() else 1.0
        below += true < precision
        shown.append(float(relevant[z >= least].sum() / relevant.sum()))
        reached.append(true)
    return {
        "below": below / runs,
        "refused": refused / runs,
        "true precision": float(np.mean(reached)) if reached else None,
        "shown": float(np.mean(shown)) if shown else None,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--precision", type=float, default=0.9)
    parser.add_argument("--truth", type=int, default=20_000, help="queries that give the true precision")
    asked = parse(parser, argv, runs=2, truth=200)
    found = []
    print("world   spread  queries  method   below  refused  true precision  shown")
    for row in rows(asked.runs, asked.precision, asked.truth):
        found.append(row)
        true, shown = (f"{row[key]:.3f}" if row[key] is not None else "–" for key in ("true precision", "shown"))
        print(
            f"{row['world']:7} {row['spread']:6.1f} {row['queries']:8d}  {row['method']:7} {row['below']:6.3f}"
            f" {row['refused']:8.3f} {true:>15} {shown:>6}",
            flush=True,
        )
    finish("precision", asked, {"runs": asked.runs, "precision": asked.precision, "rows": found})


if __name__ == "__main__":
    main()
