"""Define the stored form of one answered query, as a record of plain data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from looktwice.evaluate.trec import escape, unescape
from looktwice.search.answer import Answer
from looktwice.search.middle_stage import second_depth
from looktwice.search.run_record import RunStats
from looktwice.types import Candidate


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One answered query: candidates in the order that the second look met them, their cosines, and p of the first
    `len(p)` (None: not scored).

    `maxsim` are the scores of the middle look (empty: it did not run; None: beyond its depth), `estimated` the ids
    that it had no tokens for. Without it the order is that of the cosines. `entropy` is that of each answer (empty: not
    kept). `second` has, by id, (p, entropy) of the second question about tied candidates. `query_hash` is the SHA-256
    of the query's bytes ("": none, or not kept). `missing` are the ids without p whose image could not be read.
    """

    query: str
    ids: tuple[str, ...]
    coarse: tuple[float, ...]
    p: tuple[float | None, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    entropy: tuple[float | None, ...] = ()
    second: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    query_hash: str = ""
    maxsim: tuple[float | None, ...] = ()
    estimated: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Answer, asked: int) -> StoredAnswer:
        """Return the stored form of an answer whose first `asked` candidates got a second look, or fewer as it says."""
        asked = second_depth(answer.middle or (), asked)
        hits, kept = {hit.id: hit for hit in answer.ranking}, list(_kept(answer, asked))
        ids = tuple(candidate.id for candidate in kept)
        why = {name: hit.explain or {} for name, hit in hits.items()}
        return cls(
            answer.query.id,
            ids,
            tuple(c.coarse for c in kept),
            tuple(hits[i].p for i in ids[:asked]),
            {stage: round(spent, 5) for stage, spent in answer.stats.seconds.items()},
            tuple(why[i].get("entropy") for i in ids[:asked]),
            {i: (why[i]["second_p"], why[i]["second_entropy"]) for i in ids[:asked] if "second_p" in why[i]},
            answer.query.sha256 or "",
            () if answer.middle is None else tuple(c.maxsim for c in kept),
            tuple(c.id for c in kept if c.estimated),
            tuple(i for i in ids[:asked] if hits[i].status == "missing"),
        )

    @property
    def candidates(self) -> list[Candidate]:
        """Return the candidates in their order."""
        estimated = set(self.estimated)
        maxsim = self.maxsim or (None,) * len(self.ids)
        rows = zip(self.ids, self.coarse, maxsim, strict=True)
        return [Candidate(name, coarse, score, name in estimated) for name, coarse, score in rows]

    @property
    def gone(self) -> list[bool]:
        """Return of each candidate of the second look whether its image could not be read."""
        missing = set(self.missing)
        return [name in missing for name in self.ids[: len(self.p)]]

    @property
    def stats(self) -> RunStats:
        """Return the stored counts and seconds."""
        missing, scored = len(self.missing), sum(p is not None for p in self.p)
        status = +Counter(ok=scored, missing=missing, failed=len(self.p) - scored - missing)
        return RunStats(1, len(self.ids), len(self.p), status=status, seconds=defaultdict(float, self.seconds))

    def record(self) -> dict[str, Any]:
        """Return the answer as plain data, with escaped ids; the middle look's only if it ran."""
        second = {escape(name): answered for name, answered in self.second.items()}
        lists = {name: [escape(i) for i in getattr(self, name)] for name in ("ids", "estimated", "missing")}
        own = {**asdict(self), **lists, "query": escape(self.query), "second": second}
        return own if self.maxsim else {name: own[name] for name in own if name not in ("maxsim", "estimated")}


def _kept(answer: Answer, asked: int) -> Iterator[Candidate]:
    """Yield the candidates to keep: all, or with a middle look the best of both orders, as it may see thousands."""
    if answer.middle is None:
        yield from answer.shortlist
        return
    depth = max(answer.k, asked)
    best = {candidate.id for candidate in answer.shortlist[:depth]}
    for place, candidate in enumerate(answer.middle):
        if place < depth or candidate.id in best:
            yield candidate


def stored_row(record: Mapping[str, Any]) -> StoredAnswer:
    """Return the answer of a line. Earlier versions wrote no entropy or middle look, and "query_hash" for the hash."""
    return StoredAnswer(
        unescape(record["query"]),
        tuple(unescape(name) for name in record["ids"]),
        tuple(record["coarse"]),
        tuple(record["p"]),
        record["seconds"],
        tuple(record.get("entropy", ())),
        {unescape(name): (p, entropy) for name, (p, entropy) in record.get("second", {}).items()},
        record.get("query_hash", record.get("picture", "")),
        tuple(record.get("maxsim", ())),
        tuple(unescape(name) for name in record.get("estimated", ())),
        tuple(unescape(name) for name in record.get("missing", ())),
    )
