"""How long one query takes: the first look alone against FAISS, and both looks on the bundled gallery.

    python benchmarks/search.py
    python benchmarks/search.py --only coarse     # the first look alone

First look: exact search over random unit vectors, one query at a time and 64 together, beside a FAISS flat index of
the same vectors; one thread, processor time.

Both looks: medians over `--queries` picture queries, one at a time, after a warm-up; models loaded, pictures read from
disk at their first use. Bundled models: the second look's share is what a model of a few million parameters needs;
benchmarks/pairs.py has others.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import _coarse
from _smoke import finish, parse

from looktwice import Retriever, Table, index, load_encoder, scan
from looktwice.experiment.demo import bundled_gallery
from looktwice.models.device import place, set_threads
from looktwice.sources.queries import Queries
from looktwice.types import Encoder, Item


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--shortlists", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--items", type=int, help="index only so many pictures of the gallery")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="items of the first look")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--only", choices=["coarse", "both"], default="both")
    small = {"queries": 1, "shortlists": [3], "items": 20, "threads": 1, "sizes": [600], "dim": 64, "repeats": 1}
    asked = parse(parser, argv, **small)
    threads = set_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        coarse = list(_coarse.measure(Path(folder), asked.sizes, asked.dim, 100, asked.repeats))
    _coarse.show(coarse)
    if asked.only == "coarse":
        finish("search", asked, {"coarse": coarse, "dim": asked.dim})
        return
    gallery = bundled_gallery()
    queries = [q for q in Queries(gallery / "queries.jsonl") if q.image is not None]
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder("tiny-clip")
        table = Table.create(Path(folder) / "g.lt", encoder.info)
        begun = time.perf_counter()
        report = index(table, islice(scan([gallery / "images"]), asked.items), encoder)
        rate = report.added / (time.perf_counter() - begun)
        rows = [measured(table, encoder, None, list(islice(queries, asked.queries + 1)), 100)]
        for shortlist in asked.shortlists:
            rows.append(measured(table, encoder, "tiny-vl", list(islice(queries, asked.queries + 1)), shortlist))
    print(f"{report.added} pictures indexed, {rate:.0f} items/s")
    print(f"{'second look at':<16}{'median s':>10}{'longest s':>11}{'pairs/s':>9}")
    for row in rows:
        pairs = f"{row['pairs_s']:.1f}" if row["pairs_s"] else "-"
        print(f"{row['second_look']:<16}{row['median_s']:>10.3f}{row['longest_s']:>11.3f}{pairs:>9}")
    placed = place()
    about = {"items": report.added, "index_items_s": rate, "threads": threads, "device": placed.device}
    finish("search", asked, {"rows": rows, "coarse": coarse, "dtype": placed.dtype, **about})


def measured(
    table: Table, encoder: Encoder, scorer: str | None, queries: list[Item], shortlist: int
) -> dict[str, float | None]:
    """Median and longest seconds of one query after the first, which loads the models."""
    retriever = Retriever(table, encoder, scorer, shortlist=shortlist)
    taken: list[float] = []
    pairs, spent = 0, 0.0
    for place_, query in enumerate(queries):
        begun = time.perf_counter()
        answer = retriever.search(query)
        if place_:
            taken.append(time.perf_counter() - begun)
            pairs += answer.stats.scored
            spent += answer.stats.seconds["score"] + answer.stats.seconds["read"]
    return {
        "second_look": shortlist if scorer else 0,
        "median_s": statistics.median(taken),
        "longest_s": max(taken),
        "pairs_s": pairs / spent if pairs else None,
    }


if __name__ == "__main__":
    main()
