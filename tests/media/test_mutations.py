"""Damaged files of every format become an image or a reason: no crash, no hang, no memory without a bound."""

from __future__ import annotations

import pytest
from mutations import memory, run


@pytest.mark.parametrize("count", [240, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_damaged_files(count: int) -> None:
    counts, slowest = run(count, seed=1)
    assert len(counts) == 12 and sum(row.total() for row in counts.values()) == count
    assert all(row["image"] < row.total() for row in counts.values())
    assert slowest < 60 and memory() < 6
