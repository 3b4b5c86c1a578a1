"""`IndexReport`: the counts of an indexing run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Counts of items. `added`, `updated`, `unchanged` and `failed` add up to everything met; `reasons` splits the
    failed by the ledger's words; `encoded` is how many went through the encoder (the same bytes go once). `gone` were
    in the table and are no longer where they were, `pruned` of them were removed; `withheld` names what has lost all
    its items and was not pruned therefore; `unseen`, by place, are items that may still be there, as part of it could
    not be read, and were not pruned either. `ignored` counts files of other kinds in folders, by suffix.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    encoded: int = 0
    gone: int = 0
    pruned: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    unseen: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def met(self) -> int:
        """Return how many items were met."""
        return self.added + self.updated + self.unchanged + self.failed
