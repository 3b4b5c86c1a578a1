"""A property test once more, on a thousand cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def thousand(test: Callable[..., Any], *strategies: Any) -> None:
    """Run what stands inside a `@given` test on 1,000 cases of `strategies`; the test itself keeps its own number."""
    inner, ran = test.hypothesis.inner_test, 0  # type: ignore[attr-defined]

    def counted(case: tuple[Any, ...]) -> None:
        nonlocal ran
        inner(*case)
        ran += 1

    often = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    often(given(st.tuples(*strategies))(counted))()
    assert ran >= 1000, f"only {ran} cases"
