"""Tell, without labels, whether a middle look helps on a table: how well it agrees with the second look's order.

Images of the table are queries. Their nearest others by vector get all three scores. An order that agrees more with the
second look's is the better shortlist for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import QueryError, UsageError
from looktwice.evaluate import Interval, interval
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.token_index.compare import kendall_tau
from looktwice.token_index.images import draw_images
from looktwice.token_index.sets import shown_codecs

if TYPE_CHECKING:
    from looktwice.sources import Urls
    from looktwice.store import Table, TableReader
    from looktwice.types import Encoder

BEST = 5
DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well an order agrees with that of p, as means over queries.

    `tau` is Kendall's τ-b; `best` the share of the second look's best five that are the order's first five.
    """

    order: str
    tau: float
    best: float


@dataclass(frozen=True, slots=True)
class Probe:
    """The agreement of the first and of the middle look with the second, and the gain in τ with its 95 % interval.

    `pairs` counts candidates of all `queries`. `settings` are those of the middle look.
    """

    rows: tuple[Agreement, Agreement]
    gain: Interval
    queries: int
    pairs: int
    settings: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """Return "helps", "hurts" or "unclear": the last if the interval of the gain holds 0."""
        return "helps" if self.gain.low > 0 else "hurts" if self.gain.high < 0 else "unclear"

    def record(self) -> dict[str, Any]:
        """Return the probe as plain data."""
        rows = [asdict(row) for row in self.rows]
        about = {"verdict": self.verdict, "queries": self.queries, "pairs": self.pairs}
        return {**about, "gain": self.gain._asdict(), "orders": rows, "middle_look": dict(self.settings)}


def probe(
    table: TableReader,
    reranker: MllmReranker,
    *,
    queries: int = 16,
    depth: int = 48,
    codec: str = "auto",
    zoom: bool = False,
    seed: int = 0,
    urls: Urls = "refused",
    encoder: Encoder | None = None,
) -> Probe:
    """Compare both orders of the `depth` nearest images of some of the table's own, drawn by `seed`.

    Raises UsageError if too few images can be compared, and the errors of searching.
    """
    how: dict[str, Any] = {
        "shortlist": depth,
        "maxsim": depth,
        "maxsim_codec": codec,
        "codec": codec if codec in shown_codecs(table) else "auto",
        "zoom": zoom,
        "missing_tokens": "encode",
    }
    retriever = Retriever(table, encoder, reranker, urls=urls, **how)
    found = []
    settings: Mapping[str, Any] = {}
    pairs = 0
    for entry in draw_images(table, queries, seed, urls=urls):
        try:
            answer = retriever.search({"item": entry.id}, k=depth, where="width > 0")
        except QueryError:
            continue
        if (values := _values(answer)) is not None:
            found.append(values)
            pairs += answer.stats.scored
            settings = next(iter(answer.settings.get("middle_look", ())), {})
    if len(found) < 2:
        raise UsageError(
            f"{table.path} has too few images with tokens to compare; index more, or run looktwice add-tokens again."
        )
    tau = np.array([[first[0], middle[0]] for first, middle in found])
    best = np.array([[first[1], middle[1]] for first, middle in found])
    names = ("first look", "middle look")
    first, middle = (Agreement(name, float(tau[:, n].mean()), float(best[:, n].mean())) for n, name in enumerate(names))
    return Probe((first, middle), interval(tau[:, 1] - tau[:, 0]), len(found), pairs, settings)


def keep(table: Table, found: Probe, depth: int = DEPTH) -> None:
    """Note the verdict with the table's token set: searches then use a middle look by default where it helps."""
    key = found.settings["tokens_key"]
    entry = next(entry for entry in table.manifest.tokens if entry["tokens_key"] == key)
    noted = {"verdict": found.verdict, "depth": depth, "gain": list(found.gain)}
    if "zoom" in found.settings:
        noted["zoom"] = True
    table.note_tokens({**entry, "maxsim": noted})


def _values(answer: Answer) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return τ and the share of the best, of coarse and of maxsim against p; None without an order of p."""
    seen = [hit for hit in answer.ranking if hit.p is not None and hit.maxsim is not None]
    p = np.array([hit.p for hit in seen], float)
    orders = [np.array([hit.coarse for hit in seen], float), np.array([hit.maxsim for hit in seen], float)]
    taus = [kendall_tau(order, p) for order in orders]
    if any(map(math.isnan, taus)):
        return None
    shares = [_share(order, p) for order in orders]
    return (taus[0], shares[0]), (taus[1], shares[1])


def _share(order: Any, p: Any) -> float:
    best = set(np.argsort(-p, kind="stable")[:BEST].tolist())
    return len(best & set(np.argsort(-order, kind="stable")[:BEST].tolist())) / len(best)
