"""Recipes are scripts, not a package: they are found in their folder, and the miniatures in that of `evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "recipes"), str(TESTS / "evaluate")]
