"""Report the counts of an indexing run as an `IndexReport`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IndexReport:
    """Counts of items of one run.

    `added`, `updated`, `unchanged` and `failed` add up to all items met. `reasons` splits the failed ones by reason
    word. `encoded` items went through the encoder (the same bytes go once). `gone` items of the table no longer exist
    at their place, and `pruned` of them were removed. `withheld` lists places that lost all their items and were
    therefore not pruned. `unseen`, by place, counts items in unreadable parts, which were not pruned either. `ignored`
    counts files of other kinds in folders, by suffix. `metadata_only` of the updated items kept their vectors. `unfit`,
    by column, counts written items whose value does not fit the column, which is null for them. `accepted` items failed
    again as the user has accepted. `skipped` counts, by reason word, files that need an extra which is not installed.
    `deleted` items were passed over, because they were deleted on purpose; `restore=True` brings them back. None of the
    last three counts as met. `formats` counts the added, updated and unchanged items by the suffix of their file.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    encoded: int = 0
    metadata_only: int = 0
    gone: int = 0
    pruned: int = 0
    deleted: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    unseen: Mapping[str, int] = field(default_factory=dict)
    unfit: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    accepted: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def met(self) -> int:
        """Return how many items were met."""
        return self.added + self.updated + self.unchanged + self.failed
