"""Every pinned version installs on the oldest Python that a system brings: Debian 12 has 3.11.2."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
OLDEST = "3.11.2"


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def test_no_pin_needs_a_newer_python() -> None:
    """A pin that pip may not take makes it try versions of everything else, without end."""
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line]
    pinned = {_name(name): version for name, version in pins}
    here = [one for one in distributions() if pinned.get(_name(one.name)) == one.version.partition("+")[0]]
    assert here
    needs = {one.name: SpecifierSet(one.metadata["Requires-Python"] or "") for one in here}
    assert not {name: str(python) for name, python in needs.items() if not python.contains(OLDEST)}
