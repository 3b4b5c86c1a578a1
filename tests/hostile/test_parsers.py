"""Damage files of every kind that comes from outside: each is read, or refused with an error of ours, and soon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from parsers import PARSERS

pytestmark = pytest.mark.hostile
FILES = int(os.environ.get("HOSTILE_FILES", "1000"))


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.timeout(900)
def test_damaged(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    argv, limits = [name, str(tmp_path), "0", str(FILES)], {"AS": 12 * 2**30}
    done = zygote.run(argv, tmp_path, call="parsers:attack", seconds=600, limits=limits)
    assert done.code == 0, f"the process ended with {done.code}: {done.err[-3000:]}"
    for _ in range(FILES - len(done.value)):
        tally.add(None)
    for wrong in done.value:
        tally.add(wrong)
    tally.check()
