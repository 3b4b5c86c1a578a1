"""The record of a run: its settings, counts and seconds, which accompany every result.

This module knows counts, seconds and names; no models, tables or terminal.
"""

from __future__ import annotations

import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from looktwice.errors import MediaError
from looktwice.types import SCORED

PACKAGES = ("looktwice", "torch", "transformers", "lancedb", "faiss-cpu", "numpy", "pillow")


@dataclass
class RunStats:
    """Counts and seconds of a run, added up over its queries.

    `requested` counts the candidates sent to the second stage. Each of them has exactly one `status`: "ok" (scored),
    "bounded" (scored as an interval), "missing" (unreadable image), "failed", or "parse_error" (an answer without a
    number; in `record` also a failure). `tie_questions` counts those that got a second question because they were tied.
    `cached` counts scores from the score cache. `unreadable` holds the reason of each missing one, by id; `previewed`
    the ids of those whose preview was shown, as the original could not be read. `middle` counts the candidates of the
    middle look ("matched", "missing", "damaged") and the queries that it skipped. `scorers` holds the identity of each
    scorer that was asked. `seconds` are by stage: encode, search, maxsim, load, read, score.
    """

    queries: int = 0
    retrieved: int = 0
    requested: int = 0
    tie_questions: int = 0
    cached: int = 0
    status: Counter[str] = field(default_factory=Counter)
    directions: Counter[str] = field(default_factory=Counter)
    middle: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    unreadable: dict[str, MediaError] = field(default_factory=dict)
    previewed: set[str] = field(default_factory=set)
    scorers: set[int] = field(default_factory=set)

    @classmethod
    def total(cls, many: Iterable[RunStats]) -> RunStats:
        """Return the sum of several."""
        made = cls()
        for one in many:
            made.add(one)
        return made

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to one stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def add(self, other: RunStats) -> None:
        """Add the counts and seconds of `other`."""
        self.queries += other.queries
        self.retrieved += other.retrieved
        self.requested += other.requested
        self.tie_questions += other.tie_questions
        self.cached += other.cached
        self.status += other.status
        self.directions += other.directions
        self.middle += other.middle
        for stage, spent in other.seconds.items():
            self.seconds[stage] += spent
        self.unreadable |= other.unreadable
        self.previewed |= other.previewed
        self.scorers |= other.scorers

    def share(self, parts: float) -> defaultdict[str, float]:
        """Return the seconds of each stage, divided by `parts`."""
        return defaultdict(float, {stage: spent / parts for stage, spent in self.seconds.items()})

    @property
    def scored(self) -> int:
        """Return the number of candidates with a score."""
        return sum(self.status[one] for one in SCORED)

    @property
    def pairs_per_second(self) -> float | None:
        """Return pairs scored (not cached) per second of reading and scoring, or None without such pairs."""
        spent, scored = self.seconds["read"] + self.seconds["score"], self.scored - self.cached
        return scored / spent if scored > 0 and spent else None

    def record(self) -> dict[str, Any]:
        """Return the counts and seconds as plain data."""
        return {
            "queries": self.queries,
            "directions": dict(self.directions),
            "candidates": {
                "retrieved": self.retrieved,
                "requested": self.requested,
                "scored": self.scored,
                **({"bounded": bounded} if (bounded := self.status["bounded"]) else {}),
                "missing": self.status["missing"],
                "failed": self.status["failed"] + self.status["parse_error"],
                "parse_errors": self.status["parse_error"],
                "asked_again": self.tie_questions,
                "remembered": self.cached,
                "reasons": dict(Counter(error.reason for error in self.unreadable.values())),
                **({"previews": len(self.previewed)} if self.previewed else {}),
                **({"middle_look": dict(self.middle)} if self.middle else {}),
            },
            "seconds": {stage: round(spent, 4) for stage, spent in self.seconds.items()},
            "pairs_per_second": round(rate, 2) if (rate := self.pairs_per_second) else None,
        }


def run_manifest(settings: Mapping[str, Any], stats: RunStats) -> dict[str, Any]:
    """Join settings, counts, versions and machine into one manifest."""
    return {**settings, **stats.record(), "versions": versions(), "machine": machine()}


@cache
def versions() -> dict[str, str]:
    """Return the installed versions of packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the kind of machine and the number of threads, without names of hosts or users."""
    import torch

    return {"system": platform.system(), "architecture": platform.machine(), "threads": torch.get_num_threads()}
