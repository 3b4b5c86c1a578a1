"""SECURITY.md states the limits that the code has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| ([\d,]+)[^|]*\| `([\w.]+)\.(\w+)` \|$", PAGE, re.MULTILINE)


def test_the_table_is_found() -> None:
    assert len(ROWS) == PAGE.count("| `")


@pytest.mark.parametrize(("stated", "module", "name"), ROWS)
def test_limit(stated: str, module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"looktwice.{module}"), name) == int(stated.replace(",", ""))
