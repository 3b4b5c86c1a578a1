"""What a run was made with and what it did: the record that travels with every number.

Knows counts, seconds and names; nothing of models, tables or the terminal.
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

PACKAGES = ("looktwice", "torch", "transformers", "lancedb", "faiss-cpu", "numpy", "pillow")


@dataclass
class Tally:
    """Counts and seconds of a run, added up over its queries.

    `requested` candidates were on the part of the shortlist to look at twice; each of them ended in exactly one of
    `status`: "ok" (scored), "missing" (its picture could not be read), "failed", "parse_error".
    `asked_again` of them got a second question because they were tied; the scores of `remembered` were in the score
    cache. `unreadable` says of each missing one why, by id. `seconds` are by stage: encode, search, read, score.
    """

    queries: int = 0
    retrieved: int = 0
    requested: int = 0
    asked_again: int = 0
    remembered: int = 0
    status: Counter[str] = field(default_factory=Counter)
    directions: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    unreadable: dict[str, MediaError] = field(default_factory=dict)

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """The sum of several."""
        made = cls()
        for tally in tallies:
            made.add(tally)
        return made

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the seconds spent inside to one stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def add(self, other: Tally) -> None:
        """Add another tally's counts and seconds to this one."""
        self.queries += other.queries
        self.retrieved += other.retrieved
        self.requested += other.requested
        self.asked_again += other.asked_again
        self.remembered += other.remembered
        self.status += other.status
        self.directions += other.directions
        for stage, spent in other.seconds.items():
            self.seconds[stage] += spent
        self.unreadable |= other.unreadable

    def share(self, parts: int) -> defaultdict[str, float]:
        """Seconds of each stage, divided evenly."""
        return defaultdict(float, {stage: spent / parts for stage, spent in self.seconds.items()})

    @property
    def scored(self) -> int:
        """Candidates that got a score."""
        return self.status["ok"]

    @property
    def pairs_per_second(self) -> float | None:
        """Pairs scored here, not remembered, per second of reading and scoring; None where nothing was scored."""
        spent, scored = self.seconds["read"] + self.seconds["score"], self.scored - self.remembered
        return scored / spent if scored > 0 and spent else None

    def record(self) -> dict[str, Any]:
        """The tally as plain data."""
        return {
            "queries": self.queries,
            "directions": dict(self.directions),
            "candidates": {
                "retrieved": self.retrieved,
                "requested": self.requested,
                "scored": self.scored,
                "missing": self.status["missing"],
                "failed": self.status["failed"] + self.status["parse_error"],
                "parse_errors": self.status["parse_error"],
                "asked_again": self.asked_again,
                "remembered": self.remembered,
                "reasons": dict(Counter(error.reason for error in self.unreadable.values())),
            },
            "seconds": {stage: round(spent, 4) for stage, spent in self.seconds.items()},
            "pairs_per_second": round(rate, 2) if (rate := self.pairs_per_second) else None,
        }


def run_manifest(conditions: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """Join what was asked for (`conditions`) with what happened (`tally`) and what it ran on."""
    return {**conditions, **tally.record(), "versions": versions(), "machine": machine()}


@cache
def versions() -> dict[str, str]:
    """Installed versions of what can change a number; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Kind of machine and threads in use; no names."""
    import torch

    return {"system": platform.system(), "architecture": platform.machine(), "threads": torch.get_num_threads()}
