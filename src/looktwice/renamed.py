"""Old public names, which work for one more release and say what they are called now."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def warn(old: str, new: str) -> None:
    """Warn the caller's caller that a name has changed."""
    warnings.warn(f"{old} is now called {new}; the old name goes with the next release.", DeprecationWarning, 3)


def keyword(given: Mapping[str, Any], old: str, new: str, value: Any) -> Any:
    """Return what the old keyword was given, or `value` of the new one where the old one was not used."""
    if old not in given:
        return value
    warn(old, new)
    return given[old]
